// Requests over kept connections of Node's http agent: client.js HOST PORT NAME. A line for each request:
// PATH METHOD STATUS BYTES whole|cut|failed|wrong.
const http = require('http');

const [host, port, name] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
const kinds = ['small', 'chunked', 'none', 'large', 'echo', 'small', 'notmod', 'slow', 'close', 'reset'];

function ask(i) {
  return new Promise((done) => {
    const kind = kinds[i % kinds.length];
    const path = `/${kind}/${name}-${i}`;
    const headable = ['small', 'large', 'none'].includes(kind);
    const method = kind === 'echo' ? 'POST' : headable && i % 3 === 0 ? 'HEAD' : 'GET';
    const body = kind === 'echo' ? Buffer.alloc(500 * (i + 1), 'e') : null;
    let status = 0;
    let got = 0;
    let told = false;
    const tell = (state) => {
      if (!told) console.log(`${path} ${method} ${status} ${got} ${state}`);
      told = true;
      done();
    };
    const headers = body ? { 'Content-Length': body.length } : {};
    const request = http.request({ host, port, path, method, agent, headers, timeout: 30000 }, (response) => {
      status = response.statusCode;
      response.on('data', (part) => { got += part.length; });
      response.on('error', () => tell('cut'));
      response.on('end', () => {
        const right = path.endsWith('/' + response.headers['x-answers']);
        tell(!response.complete ? 'cut' : right ? 'whole' : 'wrong');
      });
    });
    request.on('timeout', () => request.destroy());
    request.on('error', () => tell(status ? 'cut' : 'failed'));
    request.end(body);
  });
}

Promise.all(Array.from({ length: 80 }, (_, i) => ask(i))).then(() => agent.destroy());
