import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { CompleteSnapshotCommand, EBSClient } from "@aws-sdk/client-ebs";
import { EC2Client } from "@aws-sdk/client-ec2";
import { SSMClient } from "@aws-sdk/client-ssm";
import { STSClient } from "@aws-sdk/client-sts";
import { NodeHttpHandler } from "@smithy/node-http-handler";
import type { AwsOptions, Settings } from "../options.ts";
import type { Credentials } from "./credentials.ts";

/** The SDK's clients of one place: none repeats a call, and all ask one memory for keys. */
export interface Clients {
  readonly ec2: EC2Client;
  readonly ebs: EBSClient;
  readonly ssm: SSMClient;
  readonly sts: STSClient;
  /** Where calls for blocks go, which are sent without the SDK. */
  blockEndpoint(): Promise<URL>;
  destroy(): void;
}

/** Connections of each client: describes and polls of a few machines at once. */
const controlConnections = 16;

/** Makes the clients of a place; nothing is sent. */
export function makeClients(options: AwsOptions, settings: Settings, credentials: Credentials): Clients {
  const { region, endpoint } = options;
  const { connectMs } = settings.timeouts;
  const agent = { keepAlive: true, maxSockets: controlConnections, scheduling: "fifo" } as const;
  const control = new NodeHttpHandler({
    connectionTimeout: connectMs,
    httpAgent: new HttpAgent(agent),
    httpsAgent: new HttpsAgent(agent),
    // Several machines at once may fill it, and then calls wait their turn: the SDK need not warn of it.
    socketAcquisitionWarningTimeout: 2 ** 31 - 1,
  });
  const of = (service: "ec2" | "ebs" | "ssm" | "sts"): { endpoint?: string } => {
    const url = typeof endpoint === "object" ? endpoint[service] : endpoint;
    return url === undefined ? {} : { endpoint: url };
  };
  const shared = {
    ...(region === undefined ? {} : { region }),
    maxAttempts: 1,
    customUserAgent: [[settings.product]] as [string][],
    // An identity that looks expired is asked for with every request: the memory is ours, not each client's own.
    credentials: async () => ({ ...(await credentials.identity()), expiration: new Date(0) }),
  };
  const clients = {
    ec2: new EC2Client({ ...shared, ...of("ec2"), requestHandler: control }),
    ebs: new EBSClient({ ...shared, ...of("ebs"), requestHandler: control }),
    ssm: new SSMClient({ ...shared, ...of("ssm"), requestHandler: control }),
    sts: new STSClient({ ...shared, ...of("sts"), requestHandler: control }),
  };
  return {
    ...clients,
    blockEndpoint() {
      const { endpoint: given } = of("ebs");
      return given === undefined ? endpointOf(shared) : Promise.resolve(new URL(given));
    },
    destroy() {
      for (const client of Object.values(clients)) client.destroy();
    },
  };
}

/** What of a request of the SDK's tells where it goes. */
interface SdkRequest {
  protocol: string;
  hostname: string;
  port?: number | undefined;
  path: string;
}

/**
 * Where the SDK would send calls of the EBS direct APIs: partitions, FIPS, dual stack, AWS_ENDPOINT_URL_EBS and profiles are
 * its to know. It is asked by a call that goes nowhere.
 */
async function endpointOf(place: { region?: string }): Promise<URL> {
  let found: URL | undefined;
  const client = new EBSClient({
    ...(place.region === undefined ? {} : { region: place.region }),
    maxAttempts: 1,
    credentials: { accessKeyId: "unused", secretAccessKey: "unused" },
    requestHandler: {
      handle({ protocol, hostname, port, path }: SdkRequest) {
        const authority = port === undefined ? hostname : `${hostname}:${port}`;
        found = new URL(`${protocol}//${authority}${path.replace(/\/snapshots\/.*$/, "")}`);
        return Promise.reject(new Error("Nothing is sent."));
      },
      updateHttpClientConfig() {},
      httpHandlerConfigs: () => ({}),
    },
  });
  try {
    await client.send(new CompleteSnapshotCommand({ SnapshotId: "snap-0", ChangedBlocksCount: 0 }));
  } catch (error) {
    if (found === undefined) throw error;
  }
  if (found === undefined) throw new TypeError("The SDK told no endpoint of the EBS direct APIs.");
  return found;
}
