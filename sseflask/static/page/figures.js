/** Seconds that the charts show. */
export const WINDOW = 120;
/** The service tells its figures each second: after a longer silence some are missing. */
const MISSING = 2.5;

/** The kinds of streams, as the service names them. */
export const KINDS = { stream: "Streams", channel: "Subscribers of channels", run: "Readers of runs" };

/** The figures of the service, as far back as the charts go. No drawing. */
export class Figures {
  points = [];
  /** The id of the last event that is too old to be shown: a page that is loaded again begins after it. */
  before = "";
  #slots = new Map();
  #machines = new Map();

  /** Takes one event; one that is already there, or makes no sense, counts for nothing. */
  add({ id, data }) {
    const { machine = "", at, published, workers } = JSON.parse(data);
    if (at <= (this.#machines.get(machine)?.at ?? -Infinity)) return;
    const named = workers.map((worker) => (machine ? { ...worker, pid: `${machine} ${worker.pid}` } : worker));
    this.#machines.set(machine, { at, published, workers: named });
    // Machines that share a server tell of themselves one after the other: a point has all of them.
    const present = [...this.#machines.values()].filter((each) => at - each.at <= MISSING);
    const point = {
      id,
      // Their clocks differ a little, and time goes on.
      at: at > this.newest ? at : this.newest + 0.001,
      published: present.reduce((all, each) => all + each.published, 0),
      workers: present.flatMap((each) => each.workers),
    };
    this.points.push(point);
    // A little more than is shown: the first line comes from beyond the edge.
    while (this.points[0].at < point.at - WINDOW - MISSING) this.before = this.points.shift().id;
    this.#place();
  }

  get newest() {
    return this.points.at(-1)?.at ?? -Infinity;
  }

  /** The point at that time, or none if there is a gap. */
  near(at) {
    let best = null;
    for (const point of this.points) {
      if (!best || Math.abs(point.at - at) < Math.abs(best.at - at)) best = point;
    }
    return best && Math.abs(best.at - at) <= MISSING / 2 ? best : null;
  }

  /** The processes seen in the window, each with the number of its colour. */
  get workers() {
    return [...this.#slots].map(([pid, slot]) => ({ pid, slot }));
  }

  /** Pieces of a line: `[[[at, value], ...], ...]`, apart where points or their values are missing. */
  pieces(valueOf) {
    const pieces = [];
    let last = -Infinity;
    for (const point of this.points) {
      const value = valueOf(point);
      if (value === undefined) last = -Infinity;
      else {
        if (point.at - last > MISSING) pieces.push([]);
        pieces.at(-1).push([point.at, value]);
        last = point.at;
      }
    }
    return pieces;
  }

  // A process keeps its colour while it is shown; then the next new one has it.
  #place() {
    const shown = new Set(this.points.flatMap(({ workers }) => workers.map(({ pid }) => pid)));
    for (const pid of this.#slots.keys()) if (!shown.has(pid)) this.#slots.delete(pid);
    for (const pid of shown) {
      if (this.#slots.has(pid)) continue;
      const taken = new Set(this.#slots.values());
      let slot = 0;
      while (taken.has(slot)) slot += 1;
      this.#slots.set(pid, slot);
    }
  }
}

export const MIB = 2 ** 20;
export const sum = (point, valueOf) => point.workers.reduce((all, worker) => all + valueOf(worker), 0);
export const workerOf = (point, pid) => point.workers.find((worker) => worker.pid === pid);

const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const spelled = {
  count: (value) => whole.format(value),
  rate: (value) => (value < 100 ? number : whole).format(value),
  percent: (value) => `${value > 0 && value < 1 ? value.toFixed(1) : whole.format(value)} %`,
  memory: (value) => `${whole.format(value)} MiB`,
  bytes: (value) => (value < 1000 ? `${whole.format(value)} B/s` : value < 1e6 ? `${number.format(value / 1e3)} kB/s` : `${number.format(value / 1e6)} MB/s`),
};
