import { execFile } from "node:child_process";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Certificates of one authority, as docs/guide/appliance.md makes them. */
export interface Authority {
  /** What the appliance shows and trusts. */
  readonly server: { readonly cert: string; readonly key: string; readonly ca: string };
  /** A folder with ca-cert.pem, client-cert.pem and client-key.pem for a new client. */
  client(name: string): Promise<string>;
}

const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/** Makes an authority and the appliance's certificate for `host` in a folder that it makes. */
export async function makeAuthority(folder: string, host = "IP:127.0.0.1"): Promise<Authority> {
  await mkdir(folder, { recursive: true });
  const file = (name: string): string => join(folder, name);
  const [caCert, caKey] = [file("ca-cert.pem"), file("ca-key.pem")];
  await run("openssl", ["req", "-x509", ...key, "-days", "2", "-subj", "/CN=ca", "-keyout", caKey, "-out", caCert]);
  const sign = async (name: string, extensions: string): Promise<void> => {
    const request = file(`${name}-request.pem`);
    const about = ["-subj", `/CN=${name}`, "-keyout", file(`${name}-key.pem`), "-out", request];
    await run("openssl", ["req", ...key, ...about]);
    await writeFile(file(`${name}.ext`), `basicConstraints=CA:FALSE\n${extensions}\n`);
    const by = ["-CA", caCert, "-CAkey", caKey, "-CAcreateserial", "-days", "2", "-extfile", file(`${name}.ext`)];
    await run("openssl", ["x509", "-req", "-in", request, ...by, "-out", file(`${name}-cert.pem`)]);
  };
  await sign("appliance", `subjectAltName=${host}\nextendedKeyUsage=serverAuth`);
  const [cert, serverKey, ca] = await Promise.all(
    ["appliance-cert.pem", "appliance-key.pem", "ca-cert.pem"].map((name) => readFile(file(name), "utf8")),
  );
  return {
    server: { cert: cert ?? "", key: serverKey ?? "", ca: ca ?? "" },
    async client(name) {
      await sign(name, "extendedKeyUsage=clientAuth");
      const own = join(folder, `client-${name}`);
      await mkdir(own);
      await copyFile(caCert, join(own, "ca-cert.pem"));
      await copyFile(file(`${name}-cert.pem`), join(own, "client-cert.pem"));
      await copyFile(file(`${name}-key.pem`), join(own, "client-key.pem"));
      return own;
    },
  };
}
