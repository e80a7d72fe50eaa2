// The page of the chat. What others have written gets into the page as `textContent` only.
"use strict";

const at = (id) => document.getElementById(id);
const [state, reconnect, talk, here, count] = ["state", "reconnect", "talk", "here", "count"].map(at);
const [join, nameInput, why, say, text] = ["join", "name", "why", "say", "text"].map(at);

const FIRST_PAUSE = 1000; // milliseconds
const LONGEST_PAUSE = 30000;
// The server keeps a name until it notices that its connection is lost, which takes it 40 seconds.
const PATIENCE = 60000;
const AGAIN = 2000;

let socket;
let name; // once it was entered
let names = [];
let pause = FIRST_PAUSE;
let retry;
let welcomed = false; // by this name, on this connection or one before
let patient; // until when a name that was welcomed is tried again

function connect() {
  clearTimeout(retry);
  reconnect.hidden = true;
  show("connecting", "connecting");
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(`${scheme}//${location.host}/socket`);
  socket.onopen = () => {
    pause = FIRST_PAUSE;
    patient = performance.now() + PATIENCE;
    show("connected", "connected");
    if (name) enter();
  };
  socket.onmessage = (message) => {
    const event = JSON.parse(message.data);
    handlers[event.kind]?.(event);
  };
  socket.onclose = (close) => {
    const reason = close.reason ? `: ${close.reason}` : "";
    show("disconnected", `disconnected${reason}`);
    say.querySelector("button").disabled = true;
    join.querySelector("button").disabled = false;
    reconnect.hidden = false;
    clearTimeout(retry);
    retry = setTimeout(connect, pause);
    pause = Math.min(2 * pause, LONGEST_PAUSE);
  };
}

// Sends the name, and no other one before the answer.
function enter() {
  socket.send(name);
  join.querySelector("button").disabled = true;
}

const handlers = {
  welcome(event) {
    welcomed = true;
    show("connected", "connected");
    talk.replaceChildren();
    event.history.forEach(handlers.said);
    list(event.names);
    why.textContent = "";
    join.hidden = true;
    say.hidden = false;
    say.querySelector("button").disabled = false;
    text.focus();
  },
  refused(event) {
    if (welcomed && performance.now() < patient) {
      show("connected", "connected, and waiting for your name");
      retry = setTimeout(enter, AGAIN);
      return;
    }
    show("connected", "connected");
    name = undefined;
    welcomed = false;
    join.querySelector("button").disabled = false;
    why.textContent = event.why;
    say.hidden = true;
    join.hidden = false;
    nameInput.focus();
  },
  joined(event) {
    list([...names, event.name]);
    note(`${event.name} has joined`);
  },
  left(event) {
    list(names.filter((other) => other !== event.name));
    note(`${event.name} has left`);
  },
  said(event) {
    const time = element("time", new Date(event.at).toLocaleTimeString([], { timeStyle: "short" }));
    time.dateTime = new Date(event.at).toISOString();
    const item = element("li", "");
    item.className = event.name === name ? "own" : "";
    item.append(named(event.name), time, element("p", event.text));
    append(item);
  },
};

function show(kind, words) {
  state.className = kind;
  state.textContent = words;
}

function list(those) {
  names = those;
  count.textContent = names.length;
  here.replaceChildren(...names.map((other) => {
    const item = element("li", "");
    item.append(named(other));
    return item;
  }));
}

function note(words) {
  const item = element("li", words);
  item.className = "note";
  append(item);
}

// A reader who has scrolled up stays there.
function append(item) {
  const atEnd = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 40;
  talk.append(item);
  if (atEnd) talk.scrollTop = talk.scrollHeight;
}

// Each name has its colour.
function named(words) {
  const bdi = element("bdi", words);
  let hash = 0x811c9dc5; // FNV-1a
  for (const char of words) hash = Math.imul(hash ^ char.codePointAt(0), 0x01000193);
  bdi.style.setProperty("--hue", (hash >>> 8) % 360);
  return bdi;
}

function element(tag, words) {
  const made = document.createElement(tag);
  made.textContent = words;
  return made;
}

join.addEventListener("submit", (event) => {
  event.preventDefault();
  name = nameInput.value.trim();
  if (socket.readyState === WebSocket.OPEN) enter();
});

say.addEventListener("submit", (event) => {
  event.preventDefault();
  if (socket.readyState !== WebSocket.OPEN) return;
  socket.send(text.value);
  text.value = "";
});

reconnect.addEventListener("click", () => {
  if (socket.readyState === WebSocket.CLOSED) connect();
});

connect();
