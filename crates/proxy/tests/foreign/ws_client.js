// Talks to the echo server at the address given with ws; fails loudly.
const assert = require('assert');
const { WebSocket } = require('ws');

const url = 'ws://' + process.argv[2] + '/ws?a=b';
const opened = () => new Promise((resolve, reject) => {
  const socket = new WebSocket(url, ['echo.v1', 'echo.v2']);
  socket.on('open', () => resolve(socket));
  socket.on('error', reject);
});
const answer = (socket) => new Promise((resolve) => {
  socket.once('message', (message, binary) => resolve(binary ? message : String(message)));
});

async function main() {
  const socket = await opened();
  assert.strictEqual(socket.protocol, 'echo.v2');
  const large = Buffer.alloc(2 << 20, 3);
  for (const message of ['hello', '', '\u00e9\u20ac', Buffer.from([0, 255]), 'x'.repeat(70000), large]) {
    const echoed = answer(socket);
    socket.send(message);
    assert.deepStrictEqual(await echoed, message);
  }
  const pong = new Promise((resolve) => { socket.once('pong', (data) => resolve(String(data))); });
  socket.ping('alive');
  assert.strictEqual(await pong, 'alive');
  const closed = new Promise((resolve) => {
    socket.once('close', (code, reason) => resolve([code, String(reason)]));
  });
  socket.send('bye');
  assert.deepStrictEqual(await closed, [4001, 'as asked']);
  const several = await Promise.all([...Array(20).keys()].map(opened));
  for (const each of several) {
    const echoed = answer(each);
    each.send('one of many');
    assert.strictEqual(await echoed, 'one of many');
    each.close();
  }
  console.log('all right');
  setTimeout(() => process.exit(0), 50);
}

main().catch((error) => { console.error(error); process.exit(1); });
setTimeout(() => { console.error('too slow'); process.exit(1); }, 60000).unref();
