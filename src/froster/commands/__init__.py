"""What the commands do, one file each; `cli.py` holds their options."""
