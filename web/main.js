// Composes the page: makes the parts and connects them. Knows their names and nothing else.

import { Api } from "./api.js";
import { mountComposer } from "./components/composer.js";
import { mountMessages } from "./components/messages.js";
import { mountRooms } from "./components/rooms.js";
import { mountShell } from "./components/shell.js";
import { Readiness } from "./readiness.js";
import { Session } from "./session.js";
import { Socket } from "./socket.js";
import { Store } from "./store.js";

const base = new URL("./", document.baseURI);
const store = new Store();
const api = new Api(base);
const readiness = new Readiness(
  () => api.ready(),
  (ready) => session.setReady(ready),
);
const session = new Session(store, api, () => readiness.doubt());
const socket = new Socket(base, {
  onState: (state) => store.setConnection(state),
  onOpen: () => {
    readiness.doubt();
    session.resync();
  },
  onMessage: (room, message) => session.receive(room, message),
});
const find = (id) => document.getElementById(id);

mountShell(store, find);
mountRooms(store, session, find);
mountMessages(store, session, find);
mountComposer(store, session, find);

const roomInUrl = () => {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return location.hash.slice(1);
  }
};
const open = () => session.open(roomInUrl() || "general");
addEventListener("hashchange", open);
open();
session.loadRooms();
readiness.doubt();
socket.start();
