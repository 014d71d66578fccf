// Runs the dense and the sparse file on the same images, in turns, and shows what each says and how long it takes.
const SIZE = 96, SIDE = 28, REPEATS = 5, PIXELS = SIDE * SIDE;
const NAMES = ["T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"];
const at = (id) => document.getElementById(id);
const bytes = async (path) => {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
};

// The image as the network was trained to take it: bilinearly enlarged, three equal colours, from -1 to 1.
function enlarged(image) {
  const found = new Float32Array(SIZE * SIZE * 3);
  const places = Array.from({ length: SIZE }, (_, place) => {
    const source = Math.min(Math.max(((place + 0.5) * SIDE) / SIZE - 0.5, 0), SIDE - 1);
    const low = Math.floor(source);
    return [low, Math.min(low + 1, SIDE - 1), source - low];
  });
  places.forEach(([top, bottom, down], row) => {
    places.forEach(([left, right, along], column) => {
      const above = image[top * SIDE + left] * (1 - along) + image[top * SIDE + right] * along;
      const below = image[bottom * SIDE + left] * (1 - along) + image[bottom * SIDE + right] * along;
      found.fill(((above * (1 - down) + below * down) / 255) * 2 - 1, 3 * (row * SIZE + column), 3 * (row * SIZE + column) + 3);
    });
  });
  return found;
}

function draw(image) {
  const context = at("canvas").getContext("2d");
  const pixels = context.createImageData(SIDE, SIDE);
  image.forEach((value, place) => pixels.data.set([value, value, value, 255], 4 * place));
  context.putImageData(pixels, 0, 0);
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

class Network {
  constructor(name, model, size) {
    Object.assign(this, { name, model, times: [], right: 0, seen: 0 });
    at(`${name}-size`).textContent = Math.round(size / 1000).toLocaleString();
  }

  async look(tensor, label) {
    let answer;
    const begin = performance.now(); // some browsers give a clock of 0.1 ms, so several runs are timed as one
    for (let turn = 0; turn < REPEATS; turn++) {
      answer?.delete();
      [answer] = await this.model.run([tensor]);
    }
    this.times.push((performance.now() - begin) / REPEATS);
    const scores = answer.toTypedArray();
    answer.delete();
    const said = scores.indexOf(Math.max(...scores));
    this.seen += 1;
    this.right += said === label;
    at(`${this.name}-says`).textContent = NAMES[said];
  }

  get milliseconds() {
    return median(this.times);
  }

  show(longest) {
    at(`${this.name}-time`).textContent = this.milliseconds.toFixed(2);
    at(`${this.name}-right`).textContent = `${this.right} of ${this.seen}`;
    at(`${this.name}-bar`).style.width = `${(100 * this.milliseconds) / longest}%`;
  }
}

async function run() {
  at("run").disabled = true;
  at("state").textContent = "loading ...";
  const litert = await import("@litertjs/core");
  await litert.loadLiteRt(new URL(`${package_("core")}wasm/`, location.href).href, { threads: false });
  const networks = [];
  for (const name of ["dense", "sparse"]) {
    const file = await bytes(`${name}.tflite`);
    networks.push(new Network(name, await litert.loadAndCompile(file, { accelerator: "wasm" }), file.length));
  }
  const data = await bytes("images.bin");
  const count = data.length / (PIXELS + 1);
  for (let number = 0; number < count; number++) {
    const image = data.subarray(number * PIXELS, (number + 1) * PIXELS);
    const label = data[count * PIXELS + number];
    const tensor = new litert.Tensor(enlarged(image), [1, SIZE, SIZE, 3]);
    draw(image);
    at("truth").textContent = NAMES[label];
    for (const network of number % 2 ? networks : [...networks].reverse()) await network.look(tensor, label);
    tensor.delete();
    const longest = Math.max(...networks.map((network) => network.milliseconds));
    networks.forEach((network) => network.show(longest));
    at("state").textContent = `${number + 1} of ${count} images`;
    await new Promise((done) => setTimeout(done)); // lets the page be drawn
  }
  const [dense, sparse] = networks;
  const faster = dense.milliseconds / sparse.milliseconds;
  at("verdict").textContent =
    `Here the network with zeros is ${faster.toFixed(2)} times as fast, and right on ${sparse.right} of ${count} images ` +
    `where the dense one is on ${dense.right}.`;
  at("run").disabled = false;
}

const begin = () =>
  run().catch((error) => {
    at("state").textContent = `This did not work: ${error?.message ?? error}`;
    at("run").disabled = false;
  });
at("run").addEventListener("click", begin);
if (asked.has("run")) begin();
