import type * as Ebs from "@aws-sdk/client-ebs";
import type * as Ec2 from "@aws-sdk/client-ec2";
import type * as Ssm from "@aws-sdk/client-ssm";
import { GetCallerIdentityCommand } from "@aws-sdk/client-sts";
import { type ProviderContext, type Wait, isAbort, isProviderError } from "@diskferry/core/provider";
import { asksForFreshKeys, awsError, throttleScope, translate } from "../errors.ts";
import { type AccountLimits, type LimitedOperation, accountLimits } from "../limits/account-limits.ts";
import { type AwsOptions, type Settings, settingsOf } from "../options.ts";
import { attempt } from "./attempt.ts";
import { type Clients, makeClients } from "./clients.ts";
import { Credentials, type Identity, credentialProvider } from "./credentials.ts";
import { type DirectCall, DirectClient } from "./direct-client.ts";
import { patiently } from "./patience.ts";
import { Signer } from "./sigv4.ts";

type EbsCommand<Input extends Ebs.ServiceInputTypes, Output extends Ebs.ServiceOutputTypes> = Ebs.$Command<
  Input,
  Output,
  Ebs.EBSClientResolvedConfig,
  Ebs.ServiceInputTypes,
  Ebs.ServiceOutputTypes
>;
type Ec2Command<Input extends Ec2.ServiceInputTypes, Output extends Ec2.ServiceOutputTypes> = Ec2.$Command<
  Input,
  Output,
  Ec2.EC2ClientResolvedConfig,
  Ec2.ServiceInputTypes,
  Ec2.ServiceOutputTypes
>;
type SsmCommand<Input extends Ssm.ServiceInputTypes, Output extends Ssm.ServiceOutputTypes> = Ssm.$Command<
  Input,
  Output,
  Ssm.SSMClientResolvedConfig,
  Ssm.ServiceInputTypes,
  Ssm.ServiceOutputTypes
>;

/** What a call is about. */
export interface About extends Wait {
  /** For messages: `snap-…`, `block 7 of snap-…`, `i-…`. */
  object: string;
  /** What AWS does not know may only not be known yet, as right after it was made: the error is then retryable. */
  settling?: boolean;
}

/** What a call of the EBS direct APIs is about. */
export interface BlockAbout extends About {
  /** Whose quota it uses besides the account's. */
  snapshotId?: string;
}

/** What a call of the control plane is about. */
export interface ControlAbout extends About {
  /** Asked once, whatever comes: for what must not happen twice and has no idempotence of its own. */
  once?: boolean;
}

/**
 * One place of AWS: an account in a Region, with its clients, keys, limits and the options that both sides share.
 * Everything this provider asks of AWS goes through it, so that every call has a deadline, a translated error and, where
 * AWS has a quota, leave of the limiter; keys that ran out are exchanged once and the call is made again.
 */
export class AwsConnection implements AsyncDisposable {
  readonly region: string;
  readonly options: AwsOptions;
  readonly settings: Settings;
  /** The account's number; `unknown` where STS could not be asked. */
  readonly accountId: string;
  /** What all connections of this process to this account and Region share. */
  readonly limits: AccountLimits;
  /** Tells people of something slow or unexpected that was handled. */
  readonly notice: (message: string) => void;
  readonly #clients: Clients;
  readonly #credentials: Credentials;
  #direct: Promise<DirectClient> | undefined;

  private constructor(parts: {
    region: string;
    options: AwsOptions;
    settings: Settings;
    accountId: string;
    limits: AccountLimits;
    notice: (message: string) => void;
    clients: Clients;
    credentials: Credentials;
  }) {
    this.region = parts.region;
    this.options = parts.options;
    this.settings = parts.settings;
    this.accountId = parts.accountId;
    this.limits = parts.limits;
    this.notice = parts.notice;
    this.#clients = parts.clients;
    this.#credentials = parts.credentials;
  }

  /**
   * Finds the Region, the keys and the account (STS GetCallerIdentity, which needs no permission).
   * @throws ProviderError CONFIG_INVALID without a Region, AUTH without keys that AWS accepts
   */
  static async open(options: AwsOptions, context: ProviderContext = {}): Promise<AwsConnection> {
    const { signal } = context;
    signal?.throwIfAborted();
    const settings = settingsOf(options);
    const notice = (message: string): void => context.notice?.(message);
    const { endpoint } = options;
    const stsEndpoint = typeof endpoint === "object" ? endpoint.sts : endpoint;
    const credentials = new Credentials(
      credentialProvider(options.credentials, { region: options.region, stsEndpoint }),
    );
    const clients = makeClients(options, settings, credentials);
    try {
      const region = await regionOf(clients);
      const ebsEndpoint = typeof endpoint === "object" ? endpoint.ebs : endpoint;
      const parts = { region, options, settings, notice, clients, credentials };
      const asking = new AwsConnection({
        ...parts,
        accountId: "unknown",
        limits: accountLimits({ account: "unknown", region }),
      });
      const accountId = await asking.#askAccount(signal);
      // Where the account is unknown its keys stand for it: limits are then shared by those who use the same keys.
      const account = accountId ?? (await credentials.identity()).accessKeyId;
      const limits = accountLimits({ account, region, endpoint: ebsEndpoint }, settings);
      return new AwsConnection({ ...parts, accountId: accountId ?? "unknown", limits });
    } catch (error) {
      clients.destroy();
      throw error;
    }
  }

  /** One attempt to begin or complete a snapshot, with leave of the limiters; repeats nothing, because core does. */
  ebs<Input extends Ebs.ServiceInputTypes, Output extends Ebs.ServiceOutputTypes>(
    command: EbsCommand<Input, Output>,
    about: BlockAbout,
  ): Promise<Output> {
    return this.#limited(operationOf(command) as LimitedOperation, about, (abortSignal) =>
      this.#clients.ebs.send(command, { abortSignal }),
    );
  }

  /** One attempt to read, write or list blocks, without the SDK, with leave of the limiters; repeats nothing, because core does. */
  direct<Result>(call: DirectCall<Result>, about: BlockAbout): Promise<Result> {
    return this.#limited(call.operation, about, async (signal, identity) => {
      this.#direct ??= this.#openDirect();
      const client = await this.#direct;
      return client.send(call, identity, signal);
    });
  }

  /** A call to EC2, repeated within the budget unless it is to be asked once. */
  ec2<Input extends Ec2.ServiceInputTypes, Output extends Ec2.ServiceOutputTypes>(
    command: Ec2Command<Input, Output>,
    about: ControlAbout,
  ): Promise<Output> {
    return this.#control("ec2", command, about, (abortSignal) => this.#clients.ec2.send(command, { abortSignal }));
  }

  /** A call to Systems Manager, repeated within the budget unless it is to be asked once. */
  ssm<Input extends Ssm.ServiceInputTypes, Output extends Ssm.ServiceOutputTypes>(
    command: SsmCommand<Input, Output>,
    about: ControlAbout,
  ): Promise<Output> {
    return this.#control("ssm", command, about, (abortSignal) => this.#clients.ssm.send(command, { abortSignal }));
  }

  /** Repeats what the control plane refuses for a passing reason, for calls that `ebs` tries once. */
  patiently<Result>(run: () => Promise<Result>, wait: Wait = {}): Promise<Result> {
    return patiently(this.settings.retryBudgetMs, run, wait);
  }

  /** Closes connections; what is under way fails. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#clients.destroy();
    // Where it could not be opened, the calls that wanted it have said so.
    (await this.#direct?.catch(() => undefined))?.destroy();
  }

  async #openDirect(): Promise<DirectClient> {
    const { concurrency, product, timeouts } = this.settings;
    try {
      return new DirectClient({
        endpoint: await this.#clients.blockEndpoint(),
        signer: new Signer({ region: this.region, service: "ebs" }),
        // Listings share the connections with blocks.
        connections: concurrency + 4,
        connectMs: timeouts.connectMs,
        userAgent: product.replace(/[^\w.-]/g, "-"),
      });
    } catch (error) {
      this.#direct = undefined;
      throw error;
    }
  }

  async #limited<Result>(
    operation: LimitedOperation,
    about: BlockAbout,
    send: (signal: AbortSignal, identity: Identity) => Promise<Result>,
  ): Promise<Result> {
    const request = { service: "ebs", operation, ms: this.settings.timeouts.blockMs, about };
    const permit = await this.limits.take(operation, about.snapshotId, about.signal);
    try {
      const result = await this.#attempt(request, send);
      permit.answered();
      return result;
    } catch (error) {
      const scope = throttleScope(error);
      if (scope !== undefined) permit.refused(scope === "snapshot" ? scope : undefined);
      throw error;
    }
  }

  #control<Output>(
    service: string,
    command: object,
    about: ControlAbout,
    send: (signal: AbortSignal) => Promise<Output>,
  ): Promise<Output> {
    const request = { service, operation: operationOf(command), ms: this.settings.timeouts.requestMs, about };
    const once = (): Promise<Output> => this.#attempt(request, send);
    return about.once === true ? once() : this.patiently(once, about);
  }

  async #attempt<Result>(
    request: { service: string; operation: string; ms: number; about: About },
    send: (signal: AbortSignal, identity: Identity) => Promise<Result>,
  ): Promise<Result> {
    const { service, operation, ms, about } = request;
    const { object, settling, signal } = about;
    const subject = { action: `${service}:${operation}`, object, region: this.region, settling };
    for (let fresh = false; ; fresh = true) {
      try {
        const identity = await this.#credentials.identity();
        try {
          return await attempt({ operation, object, ms, signal }, (ended) => send(ended, identity));
        } catch (error) {
          if (fresh || isProviderError(error) || signal?.aborted === true || !asksForFreshKeys(error)) throw error;
          await this.#credentials.exchange(identity);
        }
      } catch (error) {
        if (signal?.aborted === true && isAbort(error, signal)) throw signal.reason;
        throw translate(error, subject);
      }
    }
  }

  async #askAccount(signal: AbortSignal | undefined): Promise<string | undefined> {
    const object = "the account";
    const known = await this.#credentials.identity().catch((error: unknown) => {
      throw translate(error, { action: "sts:GetCallerIdentity", object, region: this.region });
    });
    if (known.accountId !== undefined) return known.accountId;
    const command = new GetCallerIdentityCommand({});
    try {
      const { Account } = await this.#control("sts", command, { object, once: true, signal }, (abortSignal) =>
        this.#clients.sts.send(command, { abortSignal }),
      );
      return Account;
    } catch (error) {
      if (!isProviderError(error) || !error.retryable) throw error;
      this.notice(
        `The account of the credentials is unknown, because STS could not be asked (${error.message}). Limits are then ` +
          `shared with connections that use the same access key alone.`,
      );
      return undefined;
    }
  }
}

function operationOf(command: object): string {
  return command.constructor.name.replace(/Command$/, "");
}

async function regionOf(clients: Clients): Promise<string> {
  try {
    return await clients.ec2.config.region();
  } catch (cause) {
    throw awsError("CONFIG_INVALID", "No Region is given. Set the option region, or AWS_REGION.", {
      operation: "open",
      cause,
    });
  }
}
