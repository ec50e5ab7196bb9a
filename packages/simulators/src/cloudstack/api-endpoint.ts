import type { IncomingMessage, ServerResponse } from "node:http";
import { ApiError, errorCodes } from "./api-error.ts";
import type { Call, CommandDefinition } from "./command.ts";
import type { CommandTable } from "./command-table.ts";
import type { Account } from "./entities.ts";
import type { FaultAction, FaultPlan } from "./fault-plan.ts";
import type { JobBoard } from "./job-board.ts";
import { Parameters } from "./parameters.ts";
import { Sessions, sessionTimeoutSeconds, type Session } from "./sessions.ts";
import { isTimely, signatureMatches } from "./signature.ts";
import type { World } from "./world.ts";

/** Longer forms are cut off; the server takes user data of a MiB at most. */
const longestForm = 2 ** 21;
const unverified = "unable to verify user credentials and/or request signature";

interface Reply {
  status: number;
  body: string;
  headers?: Record<string, string | string[]>;
}

/** `/client/api`: finds out who calls, does the command, and writes the envelope. */
export class ApiEndpoint {
  readonly #world: World;
  readonly #jobs: JobBoard;
  readonly #faults: FaultPlan;
  readonly #commands: CommandTable;
  readonly #sessions: Sessions;
  readonly #calls = new Map<string, number[]>();

  constructor(world: World, jobs: JobBoard, faults: FaultPlan, commands: CommandTable) {
    this.#world = world;
    this.#jobs = jobs;
    this.#faults = faults;
    this.#commands = commands;
    this.#sessions = new Sessions(() => world.now());
  }

  /** Ends all sessions, as a restart of the management server does. */
  endSessions(): void {
    this.#sessions.clear();
  }

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const given = await parametersOf(request);
    const command = given.get("command") ?? "";
    const faults = this.#faults.take(command);
    const struck = (kind: FaultAction["kind"]): boolean => faults.some((each) => each.kind === kind);
    for (const fault of faults) {
      if (fault.kind === "delay") await new Promise((done) => setTimeout(done, fault.ms));
      if (fault.kind === "run") await fault.run();
    }
    if (struck("hang")) return;
    if (struck("drop")) return void request.socket.destroy();
    const reply = await this.#reply(request, given, command, faults);
    if (struck("lose-answer")) return void request.socket.destroy();
    const body = Buffer.from(reply.body);
    response.writeHead(reply.status, {
      "content-type": "text/javascript;charset=UTF-8",
      "x-content-type-options": "nosniff",
      "content-length": body.length,
      date: new Date(this.#world.now()).toUTCString(),
      ...reply.headers,
    });
    response.end(body);
  }

  async #reply(
    request: IncomingMessage,
    given: ReadonlyMap<string, string>,
    command: string,
    faults: readonly FaultAction[],
  ): Promise<Reply> {
    const key = this.#commands.get(command) === undefined ? "errorresponse" : `${command.toLowerCase()}response`;
    let caller: Account | undefined;
    try {
      const status = faults.find((each) => each.kind === "status");
      if (status !== undefined)
        return { status: status.status, body: status.body ?? "", headers: status.headers ?? {} };
      if (command === "login") return this.#login(given);
      if (given.get("response") !== "json") throw new Error("the simulator answers in JSON alone: send response=json");
      const session = this.#sessionOf(request, given);
      caller = session?.account ?? this.#signer(given, command);
      const definition = this.#permitted(command, caller);
      if (session !== undefined && command === "logout") {
        this.#sessions.end(session);
        return json(200, { logoutresponse: { description: "success" } });
      }
      this.#throttle(caller);
      const error = faults.find((each) => each.kind === "error");
      if (error !== undefined) {
        const failure = new ApiError(error.code, error.text, error.exception);
        return this.#failure(key, failure, error.raw === true ? { rootAdmin: true } : caller);
      }
      if (definition === undefined)
        throw new ApiError(errorCodes.unsupportedAction, `Unknown API command: ${command}`, 9999);
      if (this.#world.settings.enforcePostAndTimestamps && request.method === "GET" && !isReading(command))
        throw new ApiError(405, "Command should be invoked with HTTP POST", 9999);
      return json(200, { [key]: await this.#run(definition, given, caller, faults) });
    } catch (error) {
      const known = error instanceof ApiError ? error : new ApiError(errorCodes.internal, String(error));
      return this.#failure(key, known, caller ?? { rootAdmin: true });
    }
  }

  #failure(key: string, error: ApiError, caller: { rootAdmin: boolean }): Reply {
    return json(error.code, {
      [key]: {
        uuidList: [],
        errorcode: error.code,
        ...(error.code === 401 ? {} : { cserrorcode: error.exception }),
        errortext: error.textFor(caller),
      },
    });
  }

  async #run(
    definition: CommandDefinition,
    given: ReadonlyMap<string, string>,
    caller: Account,
    faults: readonly FaultAction[],
  ): Promise<object> {
    const parameters = new Parameters(definition.name, given);
    const call: Call = { world: this.#world, jobs: this.#jobs, parameters, caller };
    if ("answer" in definition) return definition.answer(call);
    if (this.#world.settings.maintenance) {
      const message = "Maintenance or Shutdown has been initiated on this management server. Can not accept new jobs";
      throw new ApiError(errorCodes.unavailable, message);
    }
    const submission = await definition.submit(call);
    const name = definition.name.charAt(0).toUpperCase() + definition.name.slice(1);
    const job = this.#jobs.submit(
      definition.name,
      {
        cmd: `org.apache.cloudstack.api.command.${definition.group}.${name}Cmd`,
        caller: { ownerId: caller.id, userId: caller.userId },
        instanceType: submission.instanceType,
        instanceId: submission.instanceId,
        customId: parameters.text("customjobid"),
        queue: submission.queue,
      },
      faults,
      submission,
    );
    return submission.createdId === undefined ? { jobid: job.id } : { id: submission.createdId, jobid: job.id };
  }

  /** The session of the cookie; a wrong or missing key ends it. @throws ApiError 401 */
  #sessionOf(request: IncomingMessage, given: ReadonlyMap<string, string>): Session | undefined {
    const id = /(?:^|;\s*)JSESSIONID=([^;]+)/.exec(request.headers.cookie ?? "")?.[1];
    if (id === undefined || given.has("apikey") || given.has("apiKey")) return undefined;
    const session = this.#sessions.find(id);
    const cookieKey = /(?:^|;\s*)sessionkey=([^;]+)/.exec(request.headers.cookie ?? "")?.[1];
    if (session !== undefined && given.get("sessionkey") === session.key && cookieKey === session.key) return session;
    if (session !== undefined) this.#sessions.end(session);
    throw new ApiError(errorCodes.unauthorized, "unable to verify user credentials");
  }

  /** Whose signature it is (`ApiServer.verifyRequest`). @throws ApiError 401, and 432 for a command the role lacks */
  #signer(given: ReadonlyMap<string, string>, command: string): Account {
    const named = (wanted: string): string | undefined => {
      for (const [name, value] of given) if (name.toLowerCase() === wanted) return value;
      return undefined;
    };
    const refused = new ApiError(errorCodes.unauthorized, unverified);
    const definition = this.#commands.get(command);
    if (definition === undefined && command !== "logout") throw refused;
    const [apiKey, signature] = [named("apikey"), named("signature")];
    if (apiKey === undefined || signature === undefined) throw refused;
    const { now, settings } = { now: this.#world.now(), settings: this.#world.settings };
    const version = { version: named("signatureversion"), expires: named("expires") };
    if (!isTimely(version, now, settings.enforcePostAndTimestamps)) throw refused;
    const account = [...this.#world.accounts.values()].find((each) => each.apiKey === apiKey);
    if (account === undefined) throw refused;
    // The server looks at the role before it looks at the signature.
    this.#permitted(command, account);
    if (!signatureMatches(given, signature, account.secretKey)) throw refused;
    return account;
  }

  /** @throws ApiError 432 for a command that the role lacks */
  #permitted(command: string, account: Account): CommandDefinition | undefined {
    const definition = this.#commands.get(command);
    if (definition !== undefined && !this.#commands.permits(definition, account)) {
      const message = `The API [${command}] does not exist or is not available for the account ${account.name}.`;
      throw new ApiError(errorCodes.unsupportedAction, message, 9999);
    }
    return definition;
  }

  #throttle(account: Account): void {
    const { throttle } = this.#world.settings;
    if (throttle === undefined || account.rootAdmin) return;
    const now = Date.now();
    const recent = (this.#calls.get(account.id) ?? []).filter((each) => now - each < throttle.intervalMs);
    if (recent.length >= throttle.calls) {
      const wait = Math.max(1, throttle.intervalMs - (now - (recent[0] ?? now)));
      const message = `The given user has reached his/her account api limit, please retry after ${wait} ms.`;
      throw new ApiError(errorCodes.apiLimit, message, 9999);
    }
    recent.push(now);
    this.#calls.set(account.id, recent);
  }

  #login(given: ReadonlyMap<string, string>): Reply {
    const domain = given.get("domain") ?? "/";
    const account = [...this.#world.accounts.values()].find(
      (each) =>
        each.userName === given.get("username") &&
        each.password === given.get("password") &&
        domainPath(each.domain) === (domain.endsWith("/") ? domain : `${domain}/`),
    );
    if (account === undefined) {
      const errortext = `Failed to authenticate user ${given.get("username") ?? ""} in domain ${domain}; please provide valid credentials`;
      return json(531, { loginresponse: { uuidList: [], errorcode: 531, cserrorcode: 4365, errortext } });
    }
    const session = this.#sessions.open(account);
    const reply = json(200, {
      loginresponse: {
        username: account.userName,
        userid: account.userId,
        domainid: account.domainId,
        timeout: sessionTimeoutSeconds,
        account: account.name,
        registered: "false",
        type: account.rootAdmin ? "1" : "0",
        sessionkey: session.key,
        is2faenabled: "false",
        is2faverified: "true",
      },
    });
    const cookies = [`JSESSIONID=${session.id}; Path=/client; HttpOnly`, `sessionkey=${session.key};HttpOnly`];
    return { ...reply, headers: { "set-cookie": cookies } };
  }
}

function domainPath(domain: string): string {
  return domain === "ROOT" ? "/" : `/${domain}/`;
}

function isReading(command: string): boolean {
  return /^(list|get|query)/.test(command);
}

function json(status: number, body: object): Reply {
  return { status, body: JSON.stringify(body) };
}

/** Of the query and of the form, by their names as they are; of a name sent twice the first value. */
async function parametersOf(request: IncomingMessage): Promise<Map<string, string>> {
  const url = new URL(request.url ?? "/", "http://simulator");
  const found = new Map<string, string>();
  const add = (pairs: URLSearchParams): void => {
    for (const [name, value] of pairs) if (!found.has(name)) found.set(name, value);
  };
  add(url.searchParams);
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > longestForm) throw new Error("the form is too long");
    parts.push(part);
  }
  const type = request.headers["content-type"] ?? "";
  if (type.startsWith("application/x-www-form-urlencoded")) add(new URLSearchParams(Buffer.concat(parts).toString()));
  return found;
}
