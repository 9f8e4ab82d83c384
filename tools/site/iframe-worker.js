// Let the search work where the site is opened from a folder: browsers start no worker for a file, so its script runs
// in a hidden frame instead, which is spoken to in the same words.
if (location.protocol === "file:") {
  const load = (room, address) => new Promise((resolve, reject) => {
    const script = room.document.createElement("script");
    script.src = address;
    script.addEventListener("load", resolve);
    script.addEventListener("error", reject);
    room.document.body.append(script);
  });

  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      document.body.append(frame);
      this.room = frame.contentWindow;
      this.room.importScripts = (...more) => more.reduce((before, one) => before.then(() => load(this.room, one)), Promise.resolve());
      this.room.postMessage = (data) => setTimeout(() => {
        const answer = new MessageEvent("message", { data });
        this.dispatchEvent(answer);
        this.onmessage?.(answer);
      });
      this.ready = load(this.room, address);
    }

    postMessage(data) {
      this.ready.then(() => this.room.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {}
  };
}
