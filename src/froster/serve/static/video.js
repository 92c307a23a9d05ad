// The chosen video: on its way to the server, kept there under an id, and shown in the player.
import * as api from "./api.js";

// A file that is sent once, however often its id is asked for. `progress` gets the share that has gone.
export class Video {
  constructor(file, progress, waiting) {
    Object.assign(this, { file, progress, waiting, kept: null, sending: null });
    this.stop = new AbortController();
  }

  // What the server says of the kept video: id, seconds, width, height.
  send() {
    if (this.stop.signal.aborted) this.stop = new AbortController();
    this.sending ??= api.upload(this.file, this.stop.signal, this.progress, this.waiting).then(
      (kept) => this.kept = kept,
      (error) => { this.sending = null; throw error; });
    return this.sending;
  }

  // Asks about it, and once more where the server has deleted it meanwhile.
  async ask(route, fields, signal) {
    const attempt = async () => {
      const { id } = await this.send();
      return api.ask(route, { ...fields, id }, signal, this.waiting);
    };
    try {
      return await attempt();
    } catch (error) {
      if (error.status !== 404) throw error;
      this.kept = this.sending = null;
      return attempt();
    }
  }

  cancelSending() {
    if (!this.kept) this.stop.abort();
  }

  discard() {
    this.stop.abort();
    if (this.kept) api.forget(this.kept.id);
    this.kept = this.sending = null;
  }
}

// The player element. What the browser cannot play comes from the server, small and without sound.
export class Player {
  constructor(element, note) {
    Object.assign(this, { element, note, video: null, preview: false });
    element.addEventListener("loadedmetadata", () => {
      element.hidden = !element.videoWidth;
      if (element.hidden) this.unplayable(); // sound alone can be played
    });
    element.addEventListener("error", () => this.unplayable());
  }

  show(video) {
    this.video = video;
    this.note.textContent = "";
    this.load(video.file, false);
  }

  load(data, preview) {
    if (this.element.src) URL.revokeObjectURL(this.element.src);
    this.preview = preview;
    this.element.src = URL.createObjectURL(data);
  }

  async unplayable() {
    const { video } = this;
    this.element.hidden = true;
    if (this.preview) {
      this.note.textContent = "Your browser cannot play the preview either; the answers do not need it.";
      return;
    }
    this.note.textContent = "Your browser cannot play this file; a preview is being made …";
    try {
      const { id } = await video.send();
      const small = await api.blob(`/v1/videos/${id}/preview`, video.stop.signal, video.waiting);
      if (video !== this.video) return;
      this.load(small, true);
      this.note.textContent = "A preview, small and without sound: your browser cannot play the file.";
    } catch (error) {
      const words = error.name === "AbortError" ? "" : `No preview: ${error.message}`;
      if (video === this.video) this.note.textContent = words;
    }
  }

  goTo(seconds) {
    if (this.element.hidden) return;
    this.element.pause();
    this.element.currentTime = seconds;
  }
}
