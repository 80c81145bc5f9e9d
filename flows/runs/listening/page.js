"use strict";
// A listening test. The page knows blind names of sounds only; what they are stays in the store.
(() => {
  const test = JSON.parse(document.getElementById("test").textContent);
  const resultsAt = document.querySelector('meta[name="melmill-results"]').content;
  const main = document.getElementById("main");
  const statusLine = document.getElementById("status");
  const LETTERS = ["A", "B", "X"];
  const FADE_S = 0.01;
  const QUALITY = ["Bad", "Poor", "Fair", "Good", "Excellent"];
  const COMPARED = [
    [-3, "Much worse"], [-2, "Worse"], [-1, "Slightly worse"], [0, "About the same"],
    [1, "Slightly better"], [2, "Better"], [3, "Much better"],
  ];

  // ---- small things

  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value !== false && value !== undefined) made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children);
    return made;
  };
  const say = (text) => { statusLine.textContent = text; };
  const now = () => new Date().toISOString();

  // Numbers in [0, 1) that a text decides: FNV-1a, then mulberry32.
  const generator = (text) => {
    let state = 0x811c9dc5;
    for (const char of text) state = Math.imul(state ^ char.codePointAt(0), 0x01000193);
    return () => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  };
  const shuffled = (items, random) => {
    const made = [...items];
    for (let i = made.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [made[i], made[j]] = [made[j], made[i]];
    }
    return made;
  };

  // ---- what is kept in this browser, so that a test can be continued

  const memory = {
    works: true,
    read(key) {
      try { return JSON.parse(localStorage.getItem(`melmill-listen/${test.id}/${key}`)); }
      catch { this.works = false; return null; }
    },
    write(key, value) {
      try { localStorage.setItem(`melmill-listen/${test.id}/${key}`, JSON.stringify(value)); }
      catch { this.works = false; }
    },
  };

  // ---- sounds: one script for each trial, decoded before it is shown

  let context = null;
  const waiting = new Map();
  const loaded = new Map();
  window.melmillTrial = (name, sounds) => { waiting.get(name)?.(sounds); };

  const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer;
  const load = (name) => {
    if (!loaded.has(name)) {
      loaded.set(name, (async () => {
        const script = element("script", { src: `trials/${name}.js` });
        const sounds = await new Promise((resolve, reject) => {
          waiting.set(name, resolve);
          script.addEventListener("error", () => reject(new Error(`the sounds of page ${name} can't be loaded`)));
          document.head.append(script);
        });
        waiting.delete(name);
        script.remove();
        const made = await Promise.all(
          Object.entries(sounds).map(async ([key, text]) => [key, await context.decodeAudioData(bytes(text))]),
        );
        return Object.fromEntries(made);
      })());
      loaded.get(name).catch(() => loaded.delete(name));
      // The page shows one trial and prepares the next.
      for (const other of [...loaded.keys()].slice(0, -3)) loaded.delete(other);
    }
    return loaded.get(name);
  };

  // Plays one sound at a time. Another one goes on at the same place, with a short cross-fade.
  const player = {
    buffers: {}, current: null, source: null, gain: null, startedAt: 0, loop: false, onchange: () => {},
    get duration() { return this.current ? this.buffers[this.current].duration : 0; },
    get position() {
      if (!this.source) return 0;
      const passed = context.currentTime - this.startedAt;
      return this.loop ? passed % this.duration : Math.min(passed, this.duration);
    },
    take(buffers) {
      this.onchange = () => {};
      this.stop();
      Object.assign(this, { buffers, current: null });
    },
    async play(key) {
      await context.resume();
      const from = this.source ? this.position : 0;
      this.fade();
      const source = new AudioBufferSourceNode(context, { buffer: this.buffers[key], loop: this.loop });
      const gain = new GainNode(context, { gain: 0 });
      source.connect(gain).connect(context.destination);
      gain.gain.linearRampToValueAtTime(1, context.currentTime + FADE_S);
      source.start(0, from);
      source.addEventListener("ended", () => { if (this.source === source) this.stop(); });
      Object.assign(this, { source, gain, current: key, startedAt: context.currentTime - from });
      this.onchange();
    },
    fade() {
      if (!this.source) return;
      this.gain.gain.setValueAtTime(this.gain.gain.value, context.currentTime);
      this.gain.gain.linearRampToValueAtTime(0, context.currentTime + FADE_S);
      this.source.stop(context.currentTime + FADE_S);
      this.source = null;
    },
    stop() { this.fade(); this.source = null; this.onchange(); },
    setLoop(on) {
      const at = this.position;
      this.loop = on;
      if (this.source) { this.source.loop = on; this.startedAt = context.currentTime - at; }
    },
  };

  // ---- the listener's session

  let session = null;
  const begin = (listener) => {
    session = memory.read(`listener/${listener}`);
    if (!session || session.format !== test.format) {
      session = { format: test.format, test: test.id, listener, started_at: now(), finished_at: "", answers: {} };
    }
    memory.write("last", listener);
  };
  const keep = () => memory.write(`listener/${session.listener}`, session);
  const order = () => shuffled(test.trials, generator(`${test.id}/${session.listener}`));
  const results = () => ({
    ...session,
    answers: Object.entries(session.answers).sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([trial, answer]) => ({ trial, ...answer })),
  });

  // ---- screens

  let keys = {};
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target instanceof HTMLInputElement && event.target.type === "text";
    const onControl = event.target.closest?.("button, summary, a");
    if (typing || (onControl && (event.key === "Enter" || event.key === " "))) return;
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (act) { event.preventDefault(); act(); }
  });

  const show = (...children) => {
    player.stop();
    keys = {};
    main.replaceChildren(...children);
    const heading = main.querySelector("h1");
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  };

  const newCode = () => Array.from(crypto.getRandomValues(new Uint8Array(6)), (n) => "abcdefghjkmnpqrstuvwxyz"[n % 23]).join("");

  const startScreen = () => {
    const last = memory.read("last");
    const known = last ? memory.read(`listener/${last}`) : null;
    const field = element("input", {
      type: "text", id: "listener", autocomplete: "off", maxlength: test.longest_listener, spellcheck: "false",
      "aria-describedby": "listener-note",
    });
    field.value = last || newCode();
    const problem = element("p", { class: "problem", id: "problem", role: "alert" });
    const go = async (event) => {
      event?.preventDefault();
      const listener = field.value.trim();
      if (!listener) { problem.textContent = "Enter a name or a code."; field.focus(); return; }
      context ??= new AudioContext();
      await context.resume();
      begin(listener);
      if (session.finished_at) endScreen();
      else if (Object.keys(session.answers).length) await trialScreen();
      else await volumeScreen();
    };
    const n = test.trials.length;
    show(
      element("h1", {}, test.title),
      ...test.instructions.map((text) => element("p", {}, text)),
      element("p", {}, `There ${n === 1 ? "is 1 page" : `are ${n} pages`}. You may pause: this browser remembers where you are.`),
      element("form", { onsubmit: go },
        element("label", { for: "listener" }, element("strong", {}, "Your name or code")),
        field,
        element("p", { class: "soft", id: "listener-note" }, "It is stored with your answers. Keep the code if you want to stay unnamed."),
        problem,
        element("div", { class: "actions" }, element("button", { type: "submit", class: "main", id: "begin" },
          known && !known.finished_at && Object.keys(known.answers).length ? "Continue" : "Begin")),
      ),
    );
    if (!memory.works) say("This browser keeps nothing for this page. Finish the test without closing it.");
  };

  const volumeScreen = async () => {
    const first = order()[0];
    let buffers;
    try { buffers = await load(first.name); } catch (error) { return failed(error, volumeScreen); }
    // Any sound of the first page will do, as all of a test have the same loudness.
    player.take({ sample: buffers.reference ?? buffers[first.stimuli[0]] });
    const play = element("button", { type: "button", class: "play", id: "sample", "aria-pressed": "false",
      onclick: () => (player.source ? player.stop() : player.play("sample")) }, "Play a sound");
    player.onchange = () => play.setAttribute("aria-pressed", String(Boolean(player.source)));
    show(
      element("h1", {}, "Set the volume"),
      element("p", {}, "Play the sound and set a volume that is comfortable. Do not change it afterwards."),
      element("div", { class: "players" }, play),
      element("div", { class: "actions" }, element("button", { type: "button", class: "main", id: "start", onclick: () => trialScreen() }, "Start the test")),
    );
    keys = { " ": () => play.click(), Enter: () => trialScreen() };
  };

  const failed = (error, again) => {
    show(
      element("h1", {}, "The sounds could not be loaded"),
      element("p", {}, `${error.message}. Is the network there?`),
      element("div", { class: "actions" }, element("button", { type: "button", class: "main", onclick: () => again() }, "Try again")),
    );
  };

  const remaining = () => order().filter((trial) => !(trial.name in session.answers));

  const trialScreen = async () => {
    const left = remaining();
    if (!left.length) {
      if (!session.finished_at) { session.finished_at = now(); keep(); }
      return endScreen();
    }
    const trial = left[0];
    say("Loading the sounds of this page.");
    let buffers;
    try { buffers = await load(trial.name); } catch (error) { say(""); return failed(error, trialScreen); }
    say("");
    if (left[1]) load(left[1].name).catch(() => {});
    const random = generator(`${test.id}/${session.listener}/${trial.name}`);
    const given = KINDS[test.kind](trial, random);
    player.take(given.buffers(buffers));
    const heard = new Set();
    const plays = {};
    const shownAt = Date.now();
    const buttons = new Map();
    const all = Object.keys(player.buffers);

    const play = (key) => { heard.add(key); plays[key] = (plays[key] || 0) + 1; player.play(key); };
    for (const key of all) {
      buttons.set(key, element("button", {
        type: "button", class: "play", "data-sound": key, "aria-pressed": "false", "aria-label": `Play ${given.names[key]}`,
        "aria-keyshortcuts": given.shortcuts[key], onclick: () => play(key),
      }, given.names[key]));
    }
    const bar = element("div");
    const pause = element("button", { type: "button", id: "stop", "aria-keyshortcuts": "Space", onclick: () => player.stop() }, "Stop");
    const loop = element("input", { type: "checkbox", id: "loop", onchange: () => { player.setLoop(loop.checked); memory.write("loop", loop.checked); } });
    loop.checked = memory.read("loop") ?? test.kind === "mushra";
    player.setLoop(loop.checked);

    const problem = element("p", { class: "problem", role: "alert", id: "problem" });
    const next = element("button", { type: "button", class: "main", id: "next", "aria-keyshortcuts": "Enter", onclick: () => finish() },
      left.length > 1 ? "Next" : "Finish");
    const missing = () => {
      const unheard = all.filter((key) => !heard.has(key));
      if (unheard.length) return `Listen to ${unheard.map((key) => given.names[key]).join(", ")} first.`;
      return given.missing();
    };
    const refresh = () => {
      next.setAttribute("aria-disabled", String(Boolean(missing())));
      if (!missing()) problem.textContent = "";
    };
    const finish = () => {
      const why = missing();
      if (why) { problem.textContent = why; return; }
      const shown = (key) => given.reported?.[key] ?? key;
      session.answers[trial.name] = {
        ...given.answer(),
        plays: Object.fromEntries(Object.entries(plays).map(([key, n]) => [shown(key), n])),
        seconds: Math.round((Date.now() - shownAt) / 100) / 10,
      };
      keep();
      trialScreen();
    };
    player.onchange = () => {
      for (const [key, button] of buttons) {
        button.setAttribute("aria-pressed", String(player.source !== null && player.current === key));
        button.classList.toggle("heard", heard.has(key));
      }
      refresh();
    };
    const tick = () => {
      if (!bar.isConnected) return;
      bar.style.width = player.source ? `${(100 * player.position) / player.duration}%` : "0";
      requestAnimationFrame(tick);
    };

    const n = test.trials.length, at = n - left.length + 1;
    show(
      element("div", { class: "progress" },
        element("span", {}, `${at} of ${n}`),
        element("progress", { max: n, value: at - 1, "aria-label": "Pages done" })),
      element("h1", {}, test.question),
      ...given.body(buttons, refresh),
      element("div", { class: "transport" }, pause, element("label", {}, loop, "Repeat"), element("div", { class: "position", "aria-hidden": "true" }, bar)),
      ...given.questions(refresh),
      problem,
      element("div", { class: "actions" }, next),
      element("details", {}, element("summary", {}, "Keys"), element("p", {}, given.help)),
    );
    keys = { " ": () => (player.source ? player.stop() : play(player.current in player.buffers ? player.current : all[0])), Enter: finish };
    for (const key of all) keys[given.shortcuts[key]] = () => play(key);
    Object.assign(keys, given.keys());
    refresh();
    requestAnimationFrame(tick);
  };

  // ---- the kinds of tests: what a page shows, and the answer it makes

  const radios = (legend, choices, refresh) => {
    const boxes = choices.map(([value, text], at) => {
      const input = element("input", { type: "radio", name: "answer", value: String(value), onchange: refresh, "aria-keyshortcuts": String(at + 1) });
      return [input, element("label", {}, input, text, element("kbd", { "aria-hidden": "true" }, String(at + 1)))];
    });
    return {
      boxes: boxes.map(([input]) => input),
      view: element("fieldset", {}, element("legend", {}, legend), element("div", { class: "choices" }, ...boxes.map(([, label]) => label))),
    };
  };

  const paired = (tokens, legend, choices, convert) => {
    // Sounds are called a, b and x here; the answer says which blind names these were.
    let group = null;
    const chosen = () => group.boxes.find((box) => box.checked);
    return {
      buffers: (buffers) => Object.fromEntries(Object.entries(tokens).map(([side, token]) => [side, buffers[token]])),
      names: Object.fromEntries(Object.keys(tokens).map((side, at) => [side, LETTERS[at]])),
      shortcuts: Object.fromEntries(Object.keys(tokens).map((side) => [side, side])),
      body: (buttons) => [element("div", { class: "players" }, ...buttons.values())],
      questions: (refresh) => { group = radios(legend, choices, refresh); return [group.view]; },
      missing: () => (chosen() ? "" : "Choose an answer first."),
      answer: () => ({ ...tokens, answer: convert(chosen().value) }),
      keys: () => Object.fromEntries(group.boxes.map((box, at) => [String(at + 1), () => box.click()])),
      help: `${Object.keys(tokens).map((side) => side.toUpperCase()).join(", ")}: play. Space: stop or go on. 1 to ${choices.length}: answer. Enter: next page.`,
    };
  };

  const KINDS = {
    abx(trial, random) {
      const [a, b] = shuffled(trial.stimuli, random);
      const x = random() < 0.5 ? a : b;
      return paired({ a, b, x }, "X is", [["a", "A"], ["b", "B"]], String);
    },
    cmos(trial, random) {
      const [a, b] = shuffled(trial.stimuli, random);
      return paired({ a, b }, "Compared with A, B is", COMPARED, Number);
    },
    preference(trial, random) {
      const [a, b] = shuffled(trial.stimuli, random);
      return paired({ a, b }, "I prefer", [["a", "A"], ["b", "B"], ["none", "Neither"]], String);
    },
    mushra(trial, random) {
      const tokens = shuffled(trial.stimuli, random);
      const ratings = {};
      let players = null;
      const shortcut = (at) => "1234567890qw"[at];
      return {
        buffers: (buffers) => ({ reference: buffers.reference, ...Object.fromEntries(tokens.map((token) => [token, buffers[token]])) }),
        names: { reference: "Reference", ...Object.fromEntries(tokens.map((token, at) => [token, String(at + 1)])) },
        shortcuts: { reference: "r", ...Object.fromEntries(tokens.map((token, at) => [token, shortcut(at)])) },
        body: (buttons) => { players = buttons; return [element("div", { class: "players" }, buttons.get("reference"))]; },
        questions: (refresh) => {
          const made = tokens.map((token, at) => {
            const output = element("output", { id: `out-${token}` }, "–");
            const row = element("div", { class: "rating open" });
            const rate = () => {
              ratings[token] = Number(slider.value);
              output.textContent = slider.value;
              slider.setAttribute("aria-valuetext", `${slider.value}, ${QUALITY[Math.min(4, Math.floor(slider.value / 20))]}`);
              row.classList.remove("open");
              refresh();
            };
            const slider = element("input", {
              type: "range", min: 0, max: 100, step: 1, value: 50, "aria-label": `Quality of ${at + 1}`, "data-rating": token,
              "aria-valuetext": "not rated", oninput: rate, onchange: rate, onclick: rate, // a click may leave it at 50
            });
            row.append(players.get(token), slider, output);
            return row;
          });
          return [element("fieldset", {}, element("legend", {}, "Quality, from 0 to 100"),
            element("div", { class: "scale", "aria-hidden": "true" }, ...QUALITY.map((text) => element("span", {}, text))), ...made)];
        },
        missing: () => {
          const open = tokens.filter((token) => !(token in ratings)).map((token) => tokens.indexOf(token) + 1);
          return open.length ? `Rate ${open.join(", ")} first.` : "";
        },
        answer: () => ({ ratings: { ...ratings }, order: tokens }),
        keys: () => ({}),
        help: "R: play the reference. 1 to 9: play a version. Space: stop or go on. Tab: go to the next control. Arrows and Page keys: move a slider. Enter: next page.",
      };
    },
  };

  // ---- the end

  const file = () => new Blob([JSON.stringify(results(), null, 1)], { type: "application/json" });
  const save = () => {
    const name = session.listener.replace(/[^\p{L}\p{N}_-]+/gu, "_");
    const link = element("a", { href: URL.createObjectURL(file()), download: `${test.id}-${name}.json` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const send = async (note) => {
    note.textContent = "Sending your answers.";
    try {
      const answered = await fetch(resultsAt, { method: "POST", headers: { "Content-Type": "application/json" }, body: await file().text() });
      if (!answered.ok) throw new Error((await answered.json()).error);
      note.textContent = "Your answers have arrived.";
    } catch (error) {
      note.textContent = `Your answers could not be sent (${error.message}). Save the file and send it yourself, or try again.`;
    }
  };
  const endScreen = () => {
    const note = element("p", { id: "sent", role: "status" });
    const saving = element("button", { type: "button", class: resultsAt ? "" : "main", id: "save", onclick: save }, "Save the answers as a file");
    const again = resultsAt ? [element("button", { type: "button", class: "main", id: "send", onclick: () => send(note) }, "Send again")] : [];
    show(
      element("h1", {}, "Thank you"),
      element("p", {}, `You have answered all ${test.trials.length} pages.`),
      element("p", {}, resultsAt ? "" : "Save your answers as a file, and send it to whoever asked you to listen."),
      note,
      element("div", { class: "actions" }, ...again, saving),
      element("details", {}, element("summary", {}, "Another listener on this device"),
        element("div", { class: "actions" }, element("button", { type: "button", id: "another", onclick: () => { memory.write("last", null); startScreen(); } }, "Start anew"))),
    );
    if (resultsAt) send(note);
  };

  startScreen();
})();
