// Loaded before a function that opens a listener itself, as those written before Deno.serve do (with std's `serve`):
// the listener is the one address that the stack gives, and each request comes as a connection with one event.
const [, hostname, port] = Deno.env.get("DENO_SERVE_ADDRESS").match(/^tcp:(.+):(\d+)$/);
const localAddr = { transport: "tcp", hostname, port: Number(port) };

Deno.listen = () => {
  const events = [];
  const waiting = [];
  const next = () => events.length ? events.shift() : new Promise((resolve) => waiting.push(resolve));
  const server = Deno.serve({ hostname, port: Number(port), onListen() {} }, (request, { remoteAddr }) =>
    new Promise((resolve) => {
      const event = { request, remoteAddr, respondWith: async (response) => resolve(await response) };
      waiting.length ? waiting.shift()(event) : events.push(event);
    }));
  return {
    addr: localAddr,
    async accept() {
      const event = await next();
      return { localAddr, remoteAddr: event.remoteAddr, event, close() {} };
    },
    close() {
      server.shutdown();
    },
    async *[Symbol.asyncIterator]() {
      while (true) yield await this.accept();
    },
  };
};

Deno.serveHttp = ({ event }) => ({
  async nextRequest() {
    const only = event;
    event = null;
    return only;
  },
  close() {},
  async *[Symbol.asyncIterator]() {
    for (let request; (request = await this.nextRequest());) yield request;
  },
});
