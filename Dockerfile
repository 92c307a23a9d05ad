# docker build -t froster .                            CPU
# docker build -t froster --build-arg COMPUTE=cu130 .  CUDA; run it with --gpus all
# docker run --rm -v "$PWD:/data" froster classify clip.mp4 --labels "surfing, skiing" --model nano
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

ARG COMPUTE=cpu
WORKDIR /froster
COPY pyproject.toml constraints.txt README.md LICENSE ./
# First and by itself, so that a change of the source does not fetch it again.
RUN pip install --no-cache-dir -c constraints.txt --index-url https://download.pytorch.org/whl/${COMPUTE} torch
COPY src src
RUN pip install --no-cache-dir -c constraints.txt '.[web,parquet]' && useradd --create-home froster

USER froster
WORKDIR /data
ENTRYPOINT ["froster"]
