export * from "./protocol.ts";
export type { NbdPreSharedKey, NbdTlsFiles, NbdTlsOptions, Pem } from "./tls.ts";
export { defaultNbdPort, formatNbdUri, nbdSchemes, parseNbdUri } from "./uri.ts";
export type { NbdAddress } from "./uri.ts";
