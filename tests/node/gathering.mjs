// A reverse proxy with Express's compression in it: node gathering.mjs <port> <port behind it>
import http from "node:http";
import compression from "compression";

const [port, behind] = process.argv.slice(2).map(Number);
const compress = compression();

http
  .createServer((request, response) => {
    compress(request, response, () => {
      const { method, url, headers } = request;
      const asked = http.request({ port: behind, method, path: url, headers }, (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
      });
      response.on("close", () => asked.destroy());
      asked.on("error", () => response.destroy());
      request.pipe(asked);
    });
  })
  .listen(port, "127.0.0.1");
