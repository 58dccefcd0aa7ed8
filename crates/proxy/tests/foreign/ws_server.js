// An echo server with ws. Prints its port; serves until its input ends.
const { WebSocketServer } = require('ws');

const server = new WebSocketServer({
  host: '127.0.0.1', port: 0, perMessageDeflate: true, maxPayload: 8 << 20,
  handleProtocols: (offered) => (offered.has('echo.v2') ? 'echo.v2' : false),
});
server.on('listening', () => console.log(server.address().port));
server.on('connection', (socket) => {
  socket.on('message', (message, binary) => {
    if (!binary && String(message) === 'bye') socket.close(4001, 'as asked');
    else socket.send(message, { binary });
  });
});
process.stdin.on('end', () => process.exit(0)).resume();
