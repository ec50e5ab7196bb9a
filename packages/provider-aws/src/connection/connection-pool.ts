import { type ConnectPlace, type Exchange, HttpConnection, type Sessions } from "./http-connection.ts";

/**
 * A connection that carried nothing for longer is not used again: the far side may be closing it, and a request that meets
 * a closed connection has to be made again after a wait.
 */
const longestIdleMs = 4000;

/** A request's place in the queue or on a connection. */
export interface Turn {
  readonly exchange: Exchange;
  /** Absent while it waits. */
  connection?: HttpConnection;
}

/**
 * So many connections to one place at most, opened when none is free. The one used last is used first, so that there are as
 * many as the far side's delay wants and no more; a request that finds none waits its turn.
 */
export class ConnectionPool {
  readonly #place: ConnectPlace;
  readonly #most: number;
  readonly #sessions: Sessions = new Map();
  readonly #all = new Set<HttpConnection>();
  readonly #free: HttpConnection[] = [];
  readonly #waiting = new Set<Turn>();
  #isClosed = false;

  constructor(place: ConnectPlace, most: number) {
    this.#place = place;
    this.#most = most;
  }

  /** Sends a request as soon as there is a connection for it. */
  send(exchange: Exchange): Turn {
    const turn: Turn = { exchange };
    if (this.#isClosed) exchange.onFailure(disposed());
    else this.#waiting.add(turn);
    this.#serve();
    return turn;
  }

  /** Calls a request off: its connection is closed, and nothing of it is touched afterwards. */
  cancel(turn: Turn): void {
    this.#waiting.delete(turn);
    turn.connection?.cancel(turn.exchange);
  }

  /** Closes all connections; what is under way or waits fails. */
  close(): void {
    this.#isClosed = true;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const connection of this.#all) connection.close(disposed());
    for (const { exchange } of waiting) exchange.onFailure(disposed());
  }

  #serve(): void {
    for (const turn of this.#waiting) {
      const connection = this.#take() ?? (this.#all.size < this.#most ? this.#open() : undefined);
      if (connection === undefined) return;
      this.#waiting.delete(turn);
      turn.connection = connection;
      connection.send(turn.exchange);
    }
  }

  #take(): HttpConnection | undefined {
    const since = performance.now() - longestIdleMs;
    // The first one was used the longest ago.
    while (this.#free.length > 0 && this.#free[0]!.idleSince < since) this.#free[0]!.close();
    return this.#free.pop();
  }

  #open(): HttpConnection {
    const connection = new HttpConnection(this.#place, {
      sessions: this.#sessions,
      onFree: () => {
        this.#free.push(connection);
        this.#serve();
      },
      onClosed: () => {
        this.#all.delete(connection);
        const at = this.#free.indexOf(connection);
        if (at >= 0) this.#free.splice(at, 1);
        // Whoever it carried is told first.
        if (this.#waiting.size > 0) queueMicrotask(() => this.#serve());
      },
    });
    this.#all.add(connection);
    return connection;
  }
}

function disposed(): TypeError {
  return new TypeError("the connection to AWS was disposed");
}
