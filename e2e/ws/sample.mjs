// Runs the JavaScript samples of the protocol document, unchanged, against a bridge: the connection sample with the error
// handler that belongs to it, and the reconnection sample, whose first connection is cut.
//
//   TFDRIFT_WS=ws://127.0.0.1:8080/ws node sample.mjs
//
// Prints one JSON line for everything that happens. Exits 0 once the first sample has handled a drift and the second is
// connected again, 1 when that did not happen in TFDRIFT_WS_TIMEOUT_MS (50000).
//
// The samples get what a browser gives them: WebSocket is the npm package ws's class of the same interface, which only
// replaces the document's address by the bridge's, and handleDriftAlert is the page's own function.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { WebSocket as Client } from 'ws';

const documentPath = fileURLToPath(new URL('../../bridge/wire/testdata/websocket-api.md', import.meta.url));
const documentAddress = 'ws://localhost:8080/ws';
const address = process.env.TFDRIFT_WS;
const timeout = Number(process.env.TFDRIFT_WS_TIMEOUT_MS ?? 50000);

if (!address) {
  console.error('sample: TFDRIFT_WS is not set: give the feed\'s address, as in ws://127.0.0.1:8080/ws');
  process.exit(1);
}

const print = (sample, event, more = {}) => console.log(JSON.stringify({ sample, event, ...more }));

const waitingFor = new Set(['drift', 'reconnected']);
function done(what) {
  waitingFor.delete(what);
  if (waitingFor.size === 0) process.exit(0);
}

// webSocketFor is the class a sample sees as WebSocket. opened is told of each connection, with how many there were.
function webSocketFor(sample, opened) {
  let connections = 0;
  return class WebSocket extends Client {
    constructor(url, protocols) {
      if (url !== documentAddress) throw new Error(`the sample connects to ${url}, not to ${documentAddress}`);
      super(address, protocols);
      this.addEventListener('open', () => {
        print(sample, 'open');
        opened(this, ++connections);
      });
      this.addEventListener('message', (e) => print(sample, 'message', { message: JSON.parse(e.data) }));
      this.addEventListener('error', (e) => print(sample, 'error', { error: e.message }));
      this.addEventListener('close', (e) => print(sample, 'close', { code: e.code, reason: e.reason }));
    }
  };
}

// consoleFor shows what a sample writes, as lines of ours.
function consoleFor(sample) {
  const line = (level) => (...args) => print(sample, level, { text: args.map((a) => (typeof a === 'string' ? a : '{}')).join(' ') });
  return { log: line('log'), error: line('log_error') };
}

function run(sample, code, names) {
  const all = { console: consoleFor(sample), ...names };
  new Function(...Object.keys(all), code)(...Object.values(all));
}

const blocks = [...readFileSync(documentPath, 'utf8').matchAll(/```javascript\n(.*?)```/gs)].map((m) => m[1]);
if (blocks.length !== 3) {
  console.error(`sample: ${documentPath} has ${blocks.length} JavaScript samples, want 3: connection, reconnection, errors`);
  process.exit(1);
}
const [connection, reconnection, errors] = blocks;

setTimeout(() => {
  console.error(`sample: after ${timeout} ms still waiting for: ${[...waitingFor].join(', ')}`);
  process.exit(1);
}, timeout);

run('connection', connection + errors, {
  WebSocket: webSocketFor('connection', () => {}),
  handleDriftAlert: (payload) => {
    print('connection', 'drift', { payload });
    done('drift');
  },
});

// The document defines connect and leaves the call to its reader.
run('reconnection', reconnection + '\nconnect();', {
  WebSocket: webSocketFor('reconnection', (socket, connections) => {
    if (connections === 1) socket.terminate(); // as a broken network ends it: no close frame
    else done('reconnected');
  }),
});
