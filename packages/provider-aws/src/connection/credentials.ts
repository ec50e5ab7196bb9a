import { fromIni, fromNodeProviderChain, fromTemporaryCredentials } from "@aws-sdk/credential-providers";
import type { CredentialFunction, CredentialOptions, StaticKeys } from "../options.ts";

/** Keys, as the SDK's clients want them. */
export interface Identity {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken?: string;
  accountId?: string;
  expiration?: Date;
}

type Provide = () => Promise<Identity>;

/** Keys that run out sooner than this are exchanged before they are used, in milliseconds. */
const marginMs = 120_000;

/**
 * The one memory of a connection's keys. All clients ask it for every request, so that keys which AWS calls expired are
 * exchanged once for all of them, whatever their own date says.
 */
export class Credentials {
  readonly #provide: Provide;
  #current: Promise<Identity> | undefined;

  constructor(provide: Provide) {
    this.#provide = provide;
  }

  /** The keys to use now. */
  async identity(): Promise<Identity> {
    const known = this.#current;
    if (known !== undefined) {
      const identity = await known;
      const { expiration } = identity;
      if (expiration === undefined || expiration.getTime() - Date.now() > marginMs) return identity;
      if (this.#current === known) this.#current = undefined;
    }
    return this.#fetch();
  }

  /** Exchanges keys that were refused; those who hold the same refused keys share one exchange. */
  async exchange(refused: Identity): Promise<Identity> {
    const known = this.#current;
    if (known !== undefined) {
      const identity = await known.catch(() => undefined);
      if (identity !== undefined && identity !== refused) return identity;
      if (this.#current === known) this.#current = undefined;
    }
    return this.#fetch();
  }

  #fetch(): Promise<Identity> {
    if (this.#current !== undefined) return this.#current;
    const fetched = this.#provide();
    this.#current = fetched;
    fetched.catch(() => {
      if (this.#current === fetched) this.#current = undefined;
    });
    return fetched;
  }
}

/** The SDK remembers files of profiles as long as the process lives: keys that were renewed there would never be seen. */
const renewed = { ignoreCache: true } as const;

/** Where the options say that keys come from; absent: the SDK's default chain. */
export function credentialProvider(
  options: CredentialOptions | undefined,
  place: { region: string | undefined; stsEndpoint: string | undefined },
): Provide {
  if (options === undefined) return fresh(() => fromNodeProviderChain(renewed));
  if (typeof options === "function") return async () => identityOf(await options());
  if ("profile" in options) return fresh(() => fromIni({ ...renewed, profile: options.profile }));
  if ("accessKeyId" in options) return async () => identityOf(options);
  const { roleArn, externalId, durationSeconds, from, sessionName = "diskferry" } = options;
  const { region, stsEndpoint } = place;
  return fresh(() =>
    fromTemporaryCredentials({
      params: {
        RoleArn: roleArn,
        RoleSessionName: sessionName,
        ...(externalId === undefined ? {} : { ExternalId: externalId }),
        ...(durationSeconds === undefined ? {} : { DurationSeconds: durationSeconds }),
      },
      clientConfig: {
        ...(region === undefined ? {} : { region }),
        ...(stsEndpoint === undefined ? {} : { endpoint: stsEndpoint }),
      },
      ...(from === undefined ? {} : { masterCredentials: masterOf(from) }),
    }),
  );
}

function masterOf(from: StaticKeys | { profile: string } | CredentialFunction): Provide {
  return credentialProvider(from, { region: undefined, stsEndpoint: undefined });
}

/** The SDK's providers remember keys by themselves; a new one each time remembers nothing that was refused. */
function fresh(make: () => () => Promise<Identity>): Provide {
  return () => make()();
}

function identityOf(given: StaticKeys & { expiration?: Date | undefined }): Identity {
  const { accessKeyId, secretAccessKey, sessionToken, accountId, expiration } = given;
  return {
    accessKeyId,
    secretAccessKey,
    ...(sessionToken === undefined ? {} : { sessionToken }),
    ...(accountId === undefined ? {} : { accountId }),
    ...(expiration === undefined ? {} : { expiration }),
  };
}
