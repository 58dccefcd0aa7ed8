// The echo service of the foreign tests with @grpc/grpc-js. Prints its port; serves until its input ends.
const grpc = require('@grpc/grpc-js');

const same = (bytes) => bytes;
const method = (name, requestStream, responseStream) => ({
  path: '/test.Echo/' + name, requestStream, responseStream,
  requestSerialize: same, requestDeserialize: same,
  responseSerialize: same, responseDeserialize: same,
});
const service = {
  Unary: method('Unary', false, false),
  Fail: method('Fail', false, false),
  Slow: method('Slow', false, false),
  Many: method('Many', false, true),
  Count: method('Count', true, false),
  Echo: method('Echo', true, true),
  Halfway: method('Halfway', false, true),
};
const server = new grpc.Server({ 'grpc.max_receive_message_length': 8 << 20 });
server.addService(service, {
  Unary(call, done) {
    const initial = new grpc.Metadata();
    for (const key of ['x-plain', 'x-bytes-bin']) {
      call.metadata.get(key).forEach((value) => initial.add(key, value));
    }
    call.sendMetadata(initial);
    const trailing = new grpc.Metadata();
    trailing.add('x-trailer', 'after');
    trailing.add('x-trailer-bin', Buffer.from([0, 255]));
    done(null, call.request, trailing);
  },
  Fail(call, done) {
    const metadata = new grpc.Metadata();
    metadata.add('x-why', 'asked');
    done({ code: grpc.status.NOT_FOUND, details: 'n\u00f6t here: 100%', metadata });
  },
  Slow(call, done) {
    setTimeout(() => done(null, call.request), 20000).unref();
  },
  Many(call) {
    for (let number = 0; number < Number(call.request); number += 1) {
      call.write(Buffer.from(String(number)));
    }
    call.end();
  },
  Count(call, done) {
    let count = 0;
    call.on('data', () => { count += 1; });
    call.on('end', () => done(null, Buffer.from(String(count))));
    call.on('error', () => {});
  },
  Echo(call) {
    call.on('data', (word) => call.write(word));
    call.on('end', () => call.end());
    call.on('error', () => {});
  },
  Halfway(call) {
    call.write(Buffer.from('one'));
    call.emit('error', { code: grpc.status.DATA_LOSS, details: 'halfway' });
  },
});
server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(port);
});
process.stdin.on('end', () => process.exit(0)).resume();
