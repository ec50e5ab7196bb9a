import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** A request as it came. */
export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

/** Does what a script says with every request. */
export class ScriptedServer implements AsyncDisposable {
  readonly url: URL;
  readonly seen: SeenRequest[];
  readonly #close: () => Promise<void>;

  private constructor(url: URL, seen: SeenRequest[], close: () => Promise<void>) {
    this.url = url;
    this.seen = seen;
    this.#close = close;
  }

  static async start(script: (request: SeenRequest, response: ServerResponse) => void): Promise<ScriptedServer> {
    const seen: SeenRequest[] = [];
    const server = createServer((request, response) => {
      const parts: Buffer[] = [];
      request.on("data", (part: Buffer) => parts.push(part));
      request.on("end", () => {
        const { method = "", url = "", headers } = request;
        const one = { method, path: url, headers, body: Buffer.concat(parts).toString() };
        seen.push(one);
        script(one, response);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    return new ScriptedServer(url, seen, async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close();
  }
}

/** The SOAP envelope around an answer. */
export function soapAnswer(body: string): string {
  return (
    `<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"` +
    ` xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">` +
    `<soapenv:Body>${body}</soapenv:Body></soapenv:Envelope>`
  );
}

/** The smallest content of a vCenter's service. */
export const serviceContent: string = soapAnswer(
  `<RetrieveServiceContentResponse xmlns="urn:vim25"><returnval><rootFolder type="Folder">group-d1</rootFolder>` +
    `<propertyCollector type="PropertyCollector">propertyCollector</propertyCollector>` +
    `<about><fullName>VMware vCenter Server 7.0.3</fullName><version>7.0.3</version><build>1</build>` +
    `<apiType>VirtualCenter</apiType><apiVersion>7.0.3.0</apiVersion><instanceUuid>u</instanceUuid></about>` +
    `<sessionManager type="SessionManager">SessionManager</sessionManager></returnval></RetrieveServiceContentResponse>`,
);

/** Answers what a login needs, with this cookie; false where the request is another. */
export function answerLogin(request: SeenRequest, response: ServerResponse, cookie: string): boolean {
  if (request.path === "/sdk/vimServiceVersions.xml") {
    response.writeHead(404).end();
    return true;
  }
  if (request.body.includes("<RetrieveServiceContent ")) {
    response.end(serviceContent);
    return true;
  }
  if (request.body.includes("<Login ")) {
    response.setHeader("set-cookie", `${cookie}; Path=/; HttpOnly; Secure`);
    response.end(
      soapAnswer(
        `<LoginResponse xmlns="urn:vim25"><returnval><key>k</key><userName>u</userName></returnval></LoginResponse>`,
      ),
    );
    return true;
  }
  if (request.body.includes("<Logout ")) {
    response.end(soapAnswer(`<LogoutResponse xmlns="urn:vim25"></LogoutResponse>`));
    return true;
  }
  return false;
}
