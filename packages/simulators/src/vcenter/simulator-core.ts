import type { Exchange } from "./exchange.ts";
import type { FaultAction, FaultPlan } from "./fault-plan.ts";
import type { Session } from "./sessions.ts";
import { setTimeout as sleep } from "node:timers/promises";
import type { VimElement } from "./vim-element.ts";
import { VimFault } from "./vim-fault.ts";
import type { Reference, VimValue } from "./vim-value.ts";
import type { VimService } from "./vim-service.ts";
import type { XmlWriter } from "./xml-writer.ts";

/** A call of vim25 as an encoding read it: a method with its arguments, or a property. */
export type Wanted = { readonly self: Reference; readonly sessionKey: string | undefined } & (
  | { readonly args: VimElement; readonly opened: (session: Session) => void }
  | { readonly property: string }
);

/** What all endpoints share: the service, the fault plan and the way one call passes through both. */
export class SimulatorCore {
  readonly service: VimService;
  readonly plan: FaultPlan;
  readonly writer: XmlWriter;
  readonly secure: boolean;
  /** Bytes per second of what streams; undefined: as fast as it goes. */
  bytesPerSecond: number | undefined;

  constructor(service: VimService, plan: FaultPlan, writer: XmlWriter, secure: boolean) {
    this.service = service;
    this.plan = plan;
    this.writer = writer;
    this.secure = secure;
  }

  /**
   * Counts a call and lets happen what the plan has for it. "handled": there is nothing left to answer; otherwise the
   * actions that whoever answers has to see to.
   */
  async interfere(exchange: Exchange, method: string): Promise<FaultAction[] | "handled"> {
    const actions = this.plan.take(method);
    for (const action of actions) {
      if (action.kind === "hang") return "handled";
      if (action.kind === "drop") {
        exchange.cut();
        return "handled";
      }
      if (action.kind === "status") {
        exchange.send(action.status, action.headers ?? {}, action.body ?? "");
        return "handled";
      }
      if (action.kind === "delay") await sleep(action.ms);
      if (action.kind === "expire-sessions") this.service.parts.sessions.clear();
      if (action.kind === "run") await action.run();
    }
    return actions;
  }

  /** Does one vim25 call; "handled" where the plan left nothing to answer. */
  async perform(
    exchange: Exchange,
    method: string,
    wanted: Wanted,
  ): Promise<{ value: VimValue | undefined } | VimFault | "handled"> {
    const actions = await this.interfere(exchange, method);
    if (actions === "handled") return actions;
    for (const action of actions) if (action.kind === "fault") return faultOf(action);
    const failing = actions.find((action) => action.kind === "task-fault");
    const { service } = this;
    const session = wanted.sessionKey === undefined ? undefined : service.parts.sessions.use(wanted.sessionKey);
    try {
      let value: VimValue | undefined;
      if ("property" in wanted) {
        const open = wanted.self.type === "ServiceInstance" || session !== undefined;
        if (!open) {
          throw new VimFault("NotAuthenticated", "The session is not authenticated.", {
            object: wanted.self,
            privilegeId: "System.View",
          });
        }
        const property = service.properties(wanted.self, session)?.[wanted.property];
        if (property === undefined) {
          throw new VimFault("InvalidProperty", `no property '${wanted.property}'`, { name: wanted.property });
        }
        value = property();
      } else {
        value = await service.call({
          method,
          self: wanted.self,
          args: wanted.args,
          session,
          remoteAddress: exchange.request.socket.remoteAddress ?? "",
          userAgent: exchange.header("user-agent") ?? "",
          signal: exchange.signal,
          taskFailure: failing === undefined ? undefined : faultOf(failing),
          opened: wanted.opened,
        });
      }
      if (actions.some(({ kind }) => kind === "drop-after")) {
        exchange.cut();
        return "handled";
      }
      return { value };
    } catch (error) {
      if (error instanceof VimFault) return error;
      return new VimFault("SystemError", `A general system error occurred: ${String(error)}`, {
        reason: String(error),
      });
    }
  }
}

function faultOf(action: Extract<FaultAction, { type: string }>): VimFault {
  return new VimFault(action.type, action.message ?? `An injected ${action.type}`, action.fields);
}
