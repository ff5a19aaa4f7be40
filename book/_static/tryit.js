/* "Try it": run the symbolic part of a check in this page.

   A page from a folder may fetch nothing and start no worker from a file, but it may load scripts.
   So each part of the runtime is a script that calls tryit.take, and the worker is a data: URL that
   gets the parts as a message. Online it is the same. */
"use strict";

(() => {
  const script = document.currentScript;
  const folder = new URL("try/", script.src);
  const parts = {};
  window.tryit = { take: (name, packed) => { parts[name] = packed; } };

  const WORDS = {
    holds: "✓ holds",
    fails: "✗ fails",
    broken: "! did not run to its end",
    unchecked: "! nothing was checked: the program opens no block of evidence",
    stopped: "! stopped",
    unable: "! Python could not be started in this page",
  };
  const ELSEWHERE = "Serve the folder of the book, for example with `python -m http.server`, and open "
    + "this page from there; or run the chapter's notebook.";

  /* Runs in the worker: unpack, boot, then answer each program with a verdict. */
  async function work() {
    const parts = await new Promise((resolve) => { onmessage = (event) => resolve(event.data); });
    const unpack = async (packed) => {
      const zipped = (await fetch(`data:;base64,${packed}`)).body;
      return new Response(zipped.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
    };
    const files = {};
    await Promise.all(Object.keys(parts).map(async (name) => { files[name] = await unpack(parts[name]); }));

    const source = (name, type) => URL.createObjectURL(new Blob([files[name]], { type }));
    const load = (name) => import(source(name, "text/javascript"));
    const { loadPyodide } = await load("pyodide.mjs");
    const pyodide = await load("pyodide.asm.mjs");
    // Pyodide asks for its parts by address; they are at hand.
    self.fetch = async (address) => new Response(files[String(address).split("/").pop()], {
      headers: { "Content-Type": "application/wasm" },
    });
    const python = await loadPyodide({
      indexURL: "https://parts.invalid/",
      createPyodideModule: pyodide.default,
      lockFileContents: new TextDecoder().decode(files["pyodide-lock.json"]),
    });
    for (const name of ["libraries.zip", "cltheory.zip"]) python.unpackArchive(files[name], "zip");
    const run = python.pyimport("verdict").run;
    postMessage("ready");

    onmessage = ({ data, ports }) => {
      const start = performance.now();
      let verdict;
      try {
        verdict = run(data).toJs();
      } catch (crash) { // of the interpreter: nothing runs in it any more
        verdict = ["broken", String(crash), true];
      }
      const [state, text, dead] = verdict;
      ports[0].postMessage({ state, text, dead, seconds: (performance.now() - start) / 1000 });
    };
  }

  let runtime = null; // one for the page, from the first run until someone stops it

  function start() {
    const mine = {};
    mine.drop = () => {
      mine.worker?.terminate();
      if (runtime === mine) runtime = null;
    };
    mine.stopped = new Promise((resolve) => {
      mine.stop = () => {
        mine.drop();
        resolve({ state: "stopped", text: "" });
      };
    });
    mine.ready = boot(mine).catch((trouble) => {
      mine.drop();
      throw trouble;
    });
    return mine;
  }

  async function boot(mine) {
    await Promise.all(script.dataset.parts.split(" ").map(load));
    if (runtime !== mine) return undefined; // stopped meanwhile
    const text = `(${work})().catch((trouble) => postMessage(String(trouble)))`;
    mine.worker = new Worker(`data:text/javascript,${encodeURIComponent(text)}`, { type: "module" });
    return new Promise((resolve, reject) => {
      mine.worker.onerror = () => reject(new Error("The browser refused to start it."));
      mine.worker.onmessage = ({ data }) => (data === "ready" ? resolve() : reject(new Error(data)));
      mine.worker.postMessage(parts);
    });
  }

  const load = (name) => new Promise((resolve, reject) => {
    const tag = document.createElement("script");
    tag.src = new URL(`${name}.js`, folder);
    tag.onload = resolve;
    tag.onerror = () => reject(new Error(`${name}.js is not in ${folder}.`));
    if (name in parts) resolve();
    else document.head.append(tag);
  });

  /* Give the verdict on a program; tell what is going on until then. */
  function judge(program, tell) {
    runtime ??= start();
    const mine = runtime;
    const answer = async () => {
      tell("… loading Python and SymPy, once for this page");
      await mine.ready;
      if (runtime !== mine) return mine.stopped;
      tell("… running");
      const { port1, port2 } = new MessageChannel();
      mine.worker.postMessage(program, [port2]);
      const { data } = await new Promise((resolve) => { port1.onmessage = resolve; });
      if (data.dead) setTimeout(mine.stop); // after this verdict, for whoever else waits
      return data;
    };
    const unable = (trouble) => ({ state: "unable", text: `${trouble.message} ${ELSEWHERE}` });
    return Promise.race([answer().catch(unable), mine.stopped]);
  }

  function attach(editor) {
    const [code, run, reset, clock, state, text] = ["textarea", ".tryit-run", ".tryit-reset",
      ".tryit-clock", ".tryit-state", ".tryit-text"].map((name) => editor.querySelector(name));
    let busy = false;

    const say = (word, rest = "") => {
      state.textContent = word;
      text.textContent = rest;
    };

    async function go() {
      if (busy) return runtime?.stop();
      busy = true;
      run.textContent = "Stop";
      delete editor.dataset.state;
      const start = Date.now();
      const ticking = setInterval(() => {
        clock.textContent = `${Math.round((Date.now() - start) / 1000)} s`;
      }, 1000);
      const changed = code.value !== code.defaultValue;
      const verdict = await judge(code.value, say);
      clearInterval(ticking);
      clock.textContent = "";
      const how = verdict.seconds === undefined ? ""
        : `${changed ? ", with your changes" : ""}, computed in this page in ${verdict.seconds.toFixed(1)} s`;
      say(WORDS[verdict.state] + how, verdict.text);
      editor.dataset.state = verdict.state;
      run.textContent = "Run";
      busy = false;
    }

    run.addEventListener("click", go);
    code.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) go();
    });
    reset.addEventListener("click", () => {
      code.value = code.defaultValue;
      if (!busy) say("");
      delete editor.dataset.state;
    });
    editor.hidden = false;
  }

  document.querySelectorAll(".tryit").forEach(attach);
})();
