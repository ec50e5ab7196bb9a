import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { EBSClient } from "@aws-sdk/client-ebs";
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
  destroy(): void;
}

/** Connections for everything but blocks: describes and polls of a few machines at once. */
const controlConnections = 16;

/** Makes the clients of a place; nothing is sent. */
export function makeClients(options: AwsOptions, settings: Settings, credentials: Credentials): Clients {
  const { region, endpoint } = options;
  const { connectMs } = settings.timeouts;
  const handler = (maxSockets: number): NodeHttpHandler => {
    const agent = { keepAlive: true, maxSockets, scheduling: "fifo" } as const;
    return new NodeHttpHandler({
      connectionTimeout: connectMs,
      httpAgent: new HttpAgent(agent),
      httpsAgent: new HttpsAgent(agent),
      // Listings share the pool with blocks, so it is expected to be full: the SDK need not warn of it.
      socketAcquisitionWarningTimeout: 2 ** 31 - 1,
    });
  };
  const control = handler(controlConnections);
  const blocks = handler(settings.concurrency + 4);
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
  // Its middleware is settled before the first call, so it need not be put together for every block.
  const ebs = new EBSClient({ ...shared, ...of("ebs"), requestHandler: blocks, cacheMiddleware: true });
  leaveBlocksUnhashed(ebs);
  const clients = {
    ec2: new EC2Client({ ...shared, ...of("ec2"), requestHandler: control }),
    ebs,
    ssm: new SSMClient({ ...shared, ...of("ssm"), requestHandler: control }),
    sts: new STSClient({ ...shared, ...of("sts"), requestHandler: control }),
  };
  return {
    ...clients,
    destroy() {
      for (const client of Object.values(clients)) client.destroy();
    },
  };
}

/**
 * Has PutSnapshotBlock signed without its body (EBS direct APIs, PutSnapshotBlock: authtype v4-unsigned-body), also where
 * the SDK would hash it because the endpoint is plain http: the block's own SHA-256 is in a signed header, and AWS checks it.
 */
function leaveBlocksUnhashed(client: EBSClient): void {
  client.middlewareStack.add(
    (next, context) => (args) => {
      const { request } = args;
      if (context.commandName === "PutSnapshotBlockCommand" && isHttpRequest(request)) {
        request.headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD";
      }
      return next(args);
    },
    { step: "build", name: "leaveBlocksUnhashed" },
  );
}

function isHttpRequest(request: unknown): request is { headers: Record<string, string> } {
  return typeof request === "object" && request !== null && "headers" in request;
}
