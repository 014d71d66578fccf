// Browsers refuse workers to pages that are opened as files, and the search is one: there its script runs in a hidden
// frame instead, which speaks as a worker does.
if (location.protocol === "file:") {
  const inFrame = (url) => `<script>
    window.postMessage = (data) => parent.postMessage(data, "*");
    window.importScripts = (...urls) => urls.reduce((earlier, url) => earlier.then(() => new Promise((done) => {
      document.body.appendChild(Object.assign(document.createElement("script"), {src: url, onload: done}));
    })), Promise.resolve());
  <\/script><script src="${url}"><\/script>`;
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.body.appendChild(Object.assign(document.createElement("iframe"), {hidden: true}));
      const inside = (this.inside = this.frame.contentWindow);
      this.ready = new Promise((done) => (this.frame.onload = done));
      window.addEventListener("message", (event) => {
        if (event.source !== inside) return;
        const message = new MessageEvent("message", {data: event.data});
        this.dispatchEvent(message);
        if (this.onmessage) this.onmessage(message);
      });
      inside.document.open();
      inside.document.write(`<body>${inFrame(url)}</body>`);
      inside.document.close();
    }
    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new this.inside.MessageEvent("message", {data})));
    }
    terminate() {
      this.frame.remove();
    }
  };
}
