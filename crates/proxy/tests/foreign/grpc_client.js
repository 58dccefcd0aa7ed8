// Calls the echo service at the address given with @grpc/grpc-js; says what it did, fails loudly.
const assert = require('assert');
const grpc = require('@grpc/grpc-js');

const address = process.argv[2];
const same = (bytes) => bytes;
const client = new grpc.Client(address, grpc.credentials.createInsecure(),
  { 'grpc.max_receive_message_length': 8 << 20 });
const path = (name) => '/test.Echo/' + name;
const within = (seconds) => ({ deadline: Date.now() + seconds * 1000 });

function unary(name, request, metadata = new grpc.Metadata(), options = within(20)) {
  return new Promise((resolve) => {
    const seen = {};
    const call = client.makeUnaryRequest(path(name), same, same, request, metadata, options,
      (error, answer) => { Object.assign(seen, { error, answer }); });
    call.on('metadata', (initial) => { seen.initial = initial; });
    call.on('status', (status) => resolve(Object.assign(seen, { status })));
  });
}

function collect(stream) {
  return new Promise((resolve) => {
    const words = [];
    let failed;
    stream.on('data', (word) => words.push(String(word)));
    stream.on('error', (error) => { failed = error; });
    stream.on('status', (status) => setImmediate(() => resolve({ words, failed, status })));
  });
}

async function main() {
  const metadata = new grpc.Metadata();
  metadata.add('x-plain', 'a b');
  metadata.add('x-bytes-bin', Buffer.from([1, 254]));
  const first = await unary('Unary', Buffer.from('hello'), metadata);
  assert.strictEqual(String(first.answer), 'hello');
  assert.strictEqual(first.status.code, grpc.status.OK);
  assert.deepStrictEqual(first.initial.get('x-plain'), ['a b']);
  assert.deepStrictEqual(first.initial.get('x-bytes-bin'), [Buffer.from([1, 254])]);
  assert.deepStrictEqual(first.status.metadata.get('x-trailer'), ['after']);
  assert.deepStrictEqual(first.status.metadata.get('x-trailer-bin'), [Buffer.from([0, 255])]);

  const large = Buffer.alloc(3 << 20, 7);
  assert.ok(large.equals((await unary('Unary', large)).answer));

  const failed = await unary('Fail', Buffer.alloc(0));
  assert.strictEqual(failed.status.code, grpc.status.NOT_FOUND);
  assert.strictEqual(failed.status.details, 'n\u00f6t here: 100%');
  assert.deepStrictEqual(failed.status.metadata.get('x-why'), ['asked']);

  const slow = await unary('Slow', Buffer.alloc(0), undefined, within(0.5));
  assert.strictEqual(slow.status.code, grpc.status.DEADLINE_EXCEEDED);
  const unknown = await unary('Unknown', Buffer.alloc(0));
  assert.strictEqual(unknown.status.code, grpc.status.UNIMPLEMENTED);

  const asked = (name, text) => client.makeServerStreamRequest(path(name), same, same,
    Buffer.from(text), new grpc.Metadata(), within(20));
  const many = await collect(asked('Many', '200'));
  assert.deepStrictEqual(many.words, [...Array(200).keys()].map(String));
  assert.strictEqual(many.status.code, grpc.status.OK);
  const halfway = await collect(asked('Halfway', ''));
  assert.deepStrictEqual(halfway.words, ['one']);
  assert.strictEqual(halfway.status.code, grpc.status.DATA_LOSS);
  assert.strictEqual(halfway.status.details, 'halfway');

  const counted = await new Promise((resolve, reject) => {
    const call = client.makeClientStreamRequest(path('Count'), same, same,
      new grpc.Metadata(), within(20), (error, answer) => (error ? reject(error) : resolve(answer)));
    for (let number = 0; number < 300; number += 1) call.write(Buffer.alloc(1000));
    call.end();
  });
  assert.strictEqual(String(counted), '300');

  // Each word waits for the echo of the one before: nothing may be held back.
  const call = client.makeBidiStreamRequest(path('Echo'), same, same, new grpc.Metadata(), within(20));
  const turns = await new Promise((resolve, reject) => {
    const words = [];
    call.on('data', (word) => {
      words.push(String(word));
      if (words.length < 20) call.write(Buffer.from(String(words.length)));
      else call.end();
    });
    call.on('error', reject);
    call.on('end', () => resolve(words));
    call.write(Buffer.from('0'));
  });
  assert.deepStrictEqual(turns, [...Array(20).keys()].map(String));

  const cancelled = client.makeBidiStreamRequest(path('Echo'), same, same, new grpc.Metadata(), within(20));
  const ending = collect(cancelled);
  cancelled.write(Buffer.from('a'));
  cancelled.once('data', () => cancelled.cancel());
  assert.strictEqual((await ending).status.code, grpc.status.CANCELLED);

  const all = await Promise.all([...Array(100).keys()].map((n) => unary('Unary', Buffer.from(String(n)))));
  assert.deepStrictEqual(all.map((one) => String(one.answer)), [...Array(100).keys()].map(String));
  client.close();
  console.log('all right');
}

main().catch((error) => { console.error(error); process.exit(1); });
