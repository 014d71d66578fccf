// Runs files in LiteRT.js, in Node or in a browser: fetches its job from a server, times the models in turns, and
// sends back answers and milliseconds. Node is given the server's address as its only argument.
const node = typeof process !== "undefined" && process.versions?.node;
const server = node ? process.argv[2] : location.href;
const at = (path) => new URL(path, server);
const post = (path, body) => fetch(at(path), { method: "POST", body });

async function load(job) {
  if (!node) {
    return import("@litertjs/core");
  }
  // LiteRT.js loads its WebAssembly by a script that expects a browser, or what CommonJS modules see.
  const [{ readFileSync }, { createRequire }, { dirname }, { runInThisContext }, { pathToFileURL }] = await Promise.all(
    ["node:fs", "node:module", "node:path", "node:vm", "node:url"].map((name) => import(name)),
  );
  Object.assign(globalThis, {
    self: globalThis,
    GPUBuffer: class {},
    require: createRequire(job.core),
    importScripts(script) {
      Object.assign(globalThis, { __filename: script, __dirname: dirname(script) });
      runInThisContext(readFileSync(script, "utf8"), { filename: script });
    },
  });
  return import(pathToFileURL(job.core));
}

const TYPES = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };

async function prepared(litert, number, inputs) {
  const bytes = async (path) => (await fetch(at(path))).arrayBuffer();
  const model = await litert.loadAndCompile(new Uint8Array(await bytes(`model/${number}`)), { accelerator: "wasm" });
  const tensors = [];
  for (const [place, { dtype, shape }] of inputs.entries()) {
    tensors.push(new litert.Tensor(new TYPES[dtype](await bytes(`input/${number}/${place}`)), shape));
  }
  return async () => {
    const begin = performance.now();
    const outputs = await model.run(tensors);
    return { milliseconds: performance.now() - begin, outputs };
  };
}

async function main() {
  const job = await (await fetch(at("job"))).json();
  console.warn = () => {};  // that there is no GPU
  const litert = await load(job);
  await litert.loadLiteRt(job.wasm, { threads: false });
  const ready = new Map();
  const failures = {};
  const times = {};
  const attempt = async (number, work) => {
    try {
      await work();
    } catch (error) {
      ready.delete(number);
      failures[number] = String(error?.message ?? error);
    }
  };
  for (const [number, inputs] of job.models.entries()) {
    await attempt(number, async () => {
      ready.set(number, await prepared(litert, number, inputs));
      times[number] = [];
      const { outputs } = await ready.get(number)();
      for (const [place, output] of outputs.entries()) {
        await post(`output/${number}/${place}`, output.toTypedArray());
        output.delete();
      }
    });
  }
  for (let round = -job.warmup; round < job.runs; round++) {
    const numbers = [...ready.keys()];
    const first = numbers.length ? Math.abs(round) % numbers.length : 0;
    for (const number of [...numbers.slice(first), ...numbers.slice(0, first)]) {
      await attempt(number, async () => {
        const { milliseconds, outputs } = await ready.get(number)();
        outputs.forEach((output) => output.delete());
        if (round >= 0) times[number].push(milliseconds);
      });
    }
  }
  const where = node ? `Node ${process.versions.node}` : navigator.userAgent.match(/Chrom\w*\/[\d.]+/)?.[0];
  await post("done", JSON.stringify({ times, failures, where }));
}

main().catch((error) => post("done", JSON.stringify({ error: String(error?.stack ?? error) }))).finally(() => node && process.exit());
