import { execFile } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** A server's certificate for 127.0.0.1 and localhost with its key, and the authority that signed it. */
export interface ServerCertificate {
  readonly key: string;
  readonly certificate: string;
  /** The authority in PEM, for a client to trust. */
  readonly authority: string;
  /** SHA-1 in capital hexadecimal with colons, as vSphere calls a thumbprint. */
  readonly sha1: string;
  readonly sha256: string;
}

/**
 * Makes an authority and a certificate by the `openssl` program in `folder`; Node can read X.509 and not write it.
 *
 * @throws Error where the program is missing or fails
 */
export async function makeCertificate(folder: string, options: { expired: boolean }): Promise<ServerCertificate> {
  const file = (name: string): string => join(folder, name);
  const openssl = async (...args: string[]): Promise<void> => {
    try {
      await run("openssl", args, { cwd: folder });
    } catch (error) {
      throw new Error(`openssl ${args[0] ?? ""} failed; install openssl or start the simulator with tls: false`, {
        cause: error,
      });
    }
  };
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  await openssl(
    "req",
    "-x509",
    ...curve,
    "-subj",
    "/CN=simulated vCenter CA",
    "-days",
    "3650",
    "-keyout",
    "ca.key",
    "-out",
    "ca.pem",
  );
  await openssl("req", "-new", ...curve, "-subj", "/CN=127.0.0.1", "-keyout", "server.key", "-out", "server.csr");
  await writeFile(file("names.ext"), "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n");
  const days = options.expired ? "-1" : "3650";
  const sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
  await openssl(...sign, "-days", days, "-extfile", "names.ext", "-out", "server.pem");
  const [key, certificate, authority] = await Promise.all(
    ["server.key", "server.pem", "ca.pem"].map((name) => readFile(file(name), "utf8")),
  );
  const parsed = new X509Certificate(certificate ?? "");
  return {
    key: key ?? "",
    certificate: certificate ?? "",
    authority: authority ?? "",
    sha1: parsed.fingerprint,
    sha256: parsed.fingerprint256,
  };
}
