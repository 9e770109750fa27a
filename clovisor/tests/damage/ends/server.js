// The server of the tests' own, on Node's http. The first part of the path says in what way to answer, the last is the
// request's id, which goes back in X-Answers.
const http = require('http');

const big = Buffer.alloc(200000, 'x');
const server = http.createServer((request, response) => {
  const kind = request.url.split('/')[1];
  response.setHeader('X-Answers', request.url.split('/').pop());
  const sized = (status, body) => {
    response.writeHead(status, { 'Content-Length': body.length });
    response.end(body);
  };
  const pieces = (count, size, pause) => {
    if (count === 0) return response.end();
    response.write(Buffer.alloc(size, 'p'));
    setTimeout(() => pieces(count - 1, size, pause), pause);
  };
  switch (kind) {
    case 'large': return sized(200, big);
    case 'chunked': response.writeHead(200); return pieces(5, 6000, 1);
    case 'none': response.writeHead(204); return response.end();
    case 'notmod': response.writeHead(304, { ETag: '"1"' }); return response.end();
    case 'close':
      // Without a length and without chunks the end of the connection ends the body.
      response.removeHeader('Transfer-Encoding');
      response.writeHead(200, { Connection: 'close' });
      return pieces(2, 10000, 5);
    case 'slow': response.writeHead(200, { 'Content-Length': 5000 }); return pieces(5, 1000, 20);
    case 'echo': {
      const parts = [];
      request.on('data', (part) => parts.push(part));
      return request.on('end', () => sized(200, Buffer.concat(parts)));
    }
    case 'early':
      response.writeHead(413, { Connection: 'close', 'Content-Length': 4 });
      return response.end('big\n', () => request.socket.end());
    case 'reset':
      response.writeHead(200, { 'Content-Length': 100000 });
      return response.write(Buffer.alloc(30000, 'r'), () => request.socket.resetAndDestroy());
    default: return sized(200, Buffer.from('hello'));
  }
});
server.on('clientError', (_, socket) => socket.destroy());
server.keepAliveTimeout = 30000;
server.listen(8080, '::');
