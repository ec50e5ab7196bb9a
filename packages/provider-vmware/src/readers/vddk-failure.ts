import { type ProviderError, type ProviderErrorCode } from "@diskferry/core/provider";
import { vsphereError } from "../errors.ts";

interface Meaning {
  readonly pattern: RegExp;
  readonly code: ProviderErrorCode;
  readonly retryable?: boolean;
  readonly remedy: string;
}

/**
 * What nbdkit and VMware's library print, and what to do about it; the first that fits holds. The texts are those of
 * nbdkit's vddk plugin and of VixDiskLib_GetErrorText.
 */
const meanings: readonly Meaning[] = [
  {
    pattern: /cannot open plugin '?[^'\n]*vddk/i,
    code: "UNSUPPORTED",
    remedy:
      "nbdkit is here without its vddk plugin: install nbdkit-plugin-vddk (Debian 13, Ubuntu 25.04 or newer) or nbdkit-vddk-plugin " +
      "(Fedora, RHEL), or name another by vddk.plugin",
  },
  {
    pattern: /realpath: [^\n]*No such file or directory/i,
    code: "UNSUPPORTED",
    remedy: "a folder or file of the options is not there: see vddk.libdir and vddk.config",
  },
  {
    pattern: /required VDDK symbol|VDDK version must be/i,
    code: "UNSUPPORTED",
    remedy: "VMware's library is too old: use VDDK 6.5 or newer, best of the version of the hosts or one above",
  },
  {
    pattern: /libvixDiskLib\.so[^\n]*cannot open shared object file/i,
    code: "UNSUPPORTED",
    remedy:
      "VMware's library is not where vddk.libdir points to (lib64/libvixDiskLib.so.6 to .8): unpack the VDDK there. VDDK 9 needs " +
      "an nbdkit that knows it (newer than 1.42), or a link libvixDiskLib.so.8 to its libvixDiskLib.so.9",
  },
  {
    pattern: /cannot open shared object file|GLIBC_|GLIBCXX_|wrong ELF class/i,
    code: "UNSUPPORTED",
    remedy: "VMware's library does not load on this system; see its release notes for the systems it supports",
  },
  {
    pattern: /unknown parameter|cannot open filter|unrecognized option/i,
    code: "UNSUPPORTED",
    remedy: "this nbdkit is older than what its command line asks for; use 1.30 or newer, and see vddk.arguments",
  },
  {
    pattern: /thumbprint|SSL (exception|certificate)|certificate (verif|chain)|host certificate/i,
    code: "AUTH",
    remedy: "the server's certificate is not the one of the thumbprint; see that it was renewed, then pin the new one",
  },
  {
    pattern: /(invalid|incorrect|wrong) user ?name or password|cannot complete login|login failed|not authenticated/i,
    code: "AUTH",
    remedy: "the server refused user and password",
  },
  {
    pattern: /managed object.*(deleted|not been completely created)|snapshot .*not (found|exist)|file was not found/i,
    code: "NOT_FOUND",
    remedy: "the snapshot or its file is gone; begin a new run",
  },
  {
    pattern: /do not have access rights to this file|error 13\b|access rights/i,
    code: "DENIED",
    remedy:
      "VMware's library may not open the file (error 13): the account needs VirtualMachine.Provisioning.DiskRandomRead on the " +
      "machine, the snapshot has to exist, and no other backup program may hold the disk",
  },
  {
    pattern: /insufficient permission|not (have )?permission|NoPermission/i,
    code: "DENIED",
    remedy:
      "the account's role lacks a privilege: VirtualMachine.Provisioning.DiskRandomRead and Config.DiskLease are needed",
  },
  {
    pattern:
      /allocat(e|ion)|NFC_(NO_MEMORY|SERVICE_BUSY)|too many (NFC )?(sessions|connections)|server.*busy|NfcFssrvr.*limit/i,
    code: "THROTTLED",
    remedy:
      "the host's NFC server has no buffers left: copy fewer disks at once (readersPerHost), or make vddk.readSize smaller",
  },
  {
    pattern:
      /cannot connect to (the )?(host|server)|server refused connection|connection (was )?refused|unable to connect|failed to connect|NFC.*connect|network (error|is unreachable)|timed? ?out/i,
    code: "UNAVAILABLE",
    retryable: false,
    remedy:
      "VMware's library reads from the host itself: port 902 of every ESXi host has to be open from here, beside 443 of vCenter. The " +
      "reader 'nfc' goes through 443 alone",
  },
  {
    pattern: /transport mode|not supported|error 6\b/i,
    code: "UNSUPPORTED",
    remedy:
      "the transports of vddk.transports do not lead to this disk, or VMware's library does not fit the hosts' version",
  },
];

/** nbdkit adds this to every failure to open, whatever the reason. */
const guess = /Please verify whether the "thumbprint" parameter/;

/** What became of nbdkit, of the way to it, or of a read through it, in words that teach; `output` is what it printed. */
export function vddkFailure(
  what: string,
  failure: { output: string; message: string; missing?: boolean; cause?: unknown; operation: "open" | "read" },
): ProviderError {
  const { output, message, missing = false, cause, operation } = failure;
  const said = lastLines(output);
  const told = said === "" ? message : said;
  if (missing) {
    return vsphereError("UNSUPPORTED", `${what}: there is no nbdkit here; install it, or name it by vddk.nbdkit`, {
      operation,
      cause,
    });
  }
  for (const { pattern, code, retryable, remedy } of meanings) {
    if (!pattern.test(said)) continue;
    return vsphereError(code, `${what} by nbdkit: ${told}. ${upperFirst(remedy)}.`, {
      operation,
      cause,
      ...(retryable === undefined ? {} : { retryable: operation === "read" ? true : retryable }),
    });
  }
  const gap =
    operation === "read"
      ? "Where every read fails though the disk opened, VMware's library and the hosts differ by too many versions: use a VDDK of " +
        "the hosts' version, or at most two above."
      : "Start nbdkit by hand with -v to see more.";
  return vsphereError("UNAVAILABLE", `${what} by nbdkit: ${told}. ${gap}`, { operation, cause });
}

/** What nbdkit said before anything was served, and what to do about it. */
export function nbdkitObstacle(failure: { output: string; message: string; missing: boolean }): {
  message: string;
  remedy: string;
} {
  if (failure.missing) return { message: "there is no nbdkit here", remedy: "install it, or name it by vddk.nbdkit" };
  const said = lastLines(failure.output);
  const known = meanings.find(({ pattern }) => pattern.test(said));
  return {
    message: said === "" ? failure.message : said,
    remedy: known?.remedy ?? "start nbdkit by hand with --dump-plugin and -v to see more",
  };
}

/** The errors at the end of what nbdkit printed. */
function lastLines(output: string): string {
  const lines = output.split("\n").filter((line) => line.trim() !== "" && !/: debug: /.test(line) && !guess.test(line));
  const errors = lines.filter((line) => /error/i.test(line));
  const chosen = errors.length > 0 ? errors : lines;
  return chosen.slice(-3).join(" | ").slice(0, 1000).trim();
}

function upperFirst(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
