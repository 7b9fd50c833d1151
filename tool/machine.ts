/**
 * What of the machine can be found out from here, and what to do about it.
 *
 * @module
 */

import {
  closeSync,
  constants,
  openSync,
  readdirSync,
  readFileSync,
  statfsSync,
  statSync,
} from "node:fs";
import { join } from "node:path";
import type { Host } from "./command.ts";
import { codeOf } from "./files.ts";
import { bytes } from "./text.ts";
import { OLDEST, VERSION } from "./version.ts";

/** One thing that was looked at. */
export interface Finding {
  name: string;
  /** `"unknown"`: it cannot be found out here. */
  status: "ok" | "warn" | "fail" | "unknown";
  found: string;
  /** What to do; null: nothing. */
  advice: string | null;
}

/** Nothing to be done. */
export function isWorking(name: string, found: string): Finding {
  return { name, status: "ok", found, advice: null };
}

/** Whether a kernel's release is at least that. */
export function isAtLeast(release: string, major: number, minor: number): boolean {
  const [, first, second] = /^(\d+)\.(\d+)/.exec(release) ?? [];
  const [a, b] = [Number(first), Number(second)];
  return a > major || (a === major && b >= minor);
}

/** What is here, and whether the runtime is one of those that the tests are run in. */
export function checkVersions(host: Host): Finding {
  const { runtime, platform, arch, release } = host;
  const found = `dsmr ${VERSION}, ${runtime}, ${platform} ${arch}, kernel ${release}`;
  const [name = "", version = ""] = runtime.split(" ");
  const oldest = OLDEST[name] ?? "";
  const isNumeric = { numeric: true }; // 1.10 comes after 1.9
  if (oldest.localeCompare(version, "en", isNumeric) <= 0) return isWorking("versions", found);
  const advice = `Use ${name} ${oldest} or later: in older ones not everything works`;
  return { name: "versions", status: "fail", found, advice };
}

/** What the kernel's version says; whether a filter forbids it, only the use shows. */
export function checkKernel({ platform, release }: Host): Finding[] {
  if (platform === "darwin") {
    return [{
      name: "system",
      status: "warn",
      found: "macOS: the library for it is built, and was never run; no package has it",
      advice: "Use Linux, x86-64 or arm64; or build a checkout and run its tests",
    }];
  }
  if (platform !== "linux") {
    const found = `${platform}: there is no library for it`;
    return [{ name: "system", status: "fail", found, advice: "Use Linux, x86-64 or arm64" }];
  }
  const isOld = (major: number, minor: number): boolean => !isAtLeast(release, major, minor);
  return [
    isOld(3, 15)
      ? {
        name: "OFD locks",
        status: "fail",
        found: `kernel ${release} has none; they came with 3.15`,
        advice: "Use a newer kernel: who is alive is known by these locks",
      }
      : isWorking("OFD locks", `since kernel 3.15; this is ${release}`),
    isOld(5, 16)
      ? {
        name: "futex_waitv",
        status: "warn",
        found: `kernel ${release} has none; it came with 5.16`,
        advice: "All works; one thread looks more often at what asynchronous waits are for",
      }
      : isWorking("futex_waitv", `since kernel 5.16; this is ${release}`),
  ];
}

/** Whether system calls are filtered for this process. */
export function checkSeccomp(): Finding {
  let status: string;
  try {
    status = readFileSync("/proc/self/status", "utf8");
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
    const advice = "Mount /proc: without it, registries are created by root only";
    return { name: "seccomp", status: "unknown", found: "there is no /proc", advice };
  }
  if (/^Seccomp:\s+[12]$/m.exec(status) === null) {
    return isWorking("seccomp", "no filter of system calls");
  }
  return {
    name: "seccomp",
    status: "unknown",
    found: "system calls are filtered (a container, as a rule); it may forbid futex_waitv",
    advice: "All works without; old container runtimes forbid it, newer ones do not",
  };
}

const STICKY = 0o1000;
const WRITABLE_BY_ALL = 0o002;

/** Whether registries can be there, safe from others. */
export function checkDirectory(dir: string): Finding {
  const name = "directory";
  let mode: number;
  try {
    const found = statSync(dir);
    if (!found.isDirectory()) {
      const advice = "Name a directory with --dir or DSMR_DIR";
      return { name, status: "fail", found: `${dir} is no directory`, advice };
    }
    mode = found.mode & 0o7777;
  } catch (error) {
    const advice = dir === "/dev/shm"
      ? "Mount it (mount -t tmpfs tmpfs /dev/shm), or name another with DSMR_DIR"
      : "Create it, or name another with --dir or DSMR_DIR";
    return { name, status: "fail", found: `${dir}: ${codeOf(error) ?? String(error)}`, advice };
  }
  const found = `${dir}, mode ${mode.toString(8)}`;
  if ((mode & WRITABLE_BY_ALL) !== 0 && (mode & STICKY) === 0) {
    const advice = `chmod +t ${dir}: others could remove or replace your registries' files`;
    return { name, status: "warn", found: `${found}: writable by all, not sticky`, advice };
  }
  return isWorking(name, found);
}

/** Below this, a registry of the default size hardly fits. */
const FREE_MIN = 8 * 1024 * 1024;
/** A registry is a file, and each of its segments. */
const FILES_MIN = 16;

const fileSystems: { readonly [type: number]: string } = {
  0x01021994: "tmpfs",
  0x858458f6: "ramfs",
  0xef53: "ext4",
  0x58465342: "xfs",
  0x9123683e: "btrfs",
  0x794c7630: "overlayfs",
  0x6969: "nfs",
};

/** How much room there is, and of what kind. */
export function checkSpace(dir: string): Finding {
  const { type, bsize, blocks, bavail, files, ffree } = statfsSync(dir);
  const kind = fileSystems[type >>> 0] ?? `type 0x${(type >>> 0).toString(16)}`;
  const free = bavail * bsize;
  const found = `${bytes(free)} free of ${bytes(blocks * bsize)}, ${kind}`;
  const name = "space";
  if (blocks > 0 && free < FREE_MIN) {
    const advice = dir === "/dev/shm"
      ? "Free some, or enlarge it: mount -o remount,size=1G /dev/shm; docker run --shm-size=1g"
      : "Free some, or name another directory with DSMR_DIR";
    return { name, status: "fail", found, advice };
  }
  if (files > 0 && ffree < FILES_MIN) {
    const advice = "Remove files, or name another directory with DSMR_DIR";
    const rest = `${found}, but room for ${ffree} more files of ${files}`;
    return { name, status: "fail", found: rest, advice };
  }
  if (kind === "nfs") {
    const advice = "Use a directory of this machine, such as /dev/shm";
    return {
      name,
      status: "fail",
      found: `${found}: memory cannot be shared over a network`,
      advice,
    };
  }
  if (kind !== "tmpfs" && kind !== "ramfs") {
    const advice = "It works, but the kernel writes the memory to the disk; /dev/shm is faster";
    return { name, status: "warn", found, advice };
  }
  return isWorking(name, found);
}

/** __O_TMPFILE of the kernel; the whole flag is this and O_DIRECTORY. */
const NAMELESS = 0o20000000;

/** Whether files without a name can be made there, as control files are. */
export function checkNameless(dir: string, platform: string): Finding {
  const name = "O_TMPFILE";
  if (platform !== "linux") {
    return { name, status: "unknown", found: `not a thing of ${platform}`, advice: null };
  }
  try {
    closeSync(openSync(dir, constants.O_RDWR | constants.O_DIRECTORY | NAMELESS, 0o600));
    return isWorking(name, "files without a name can be made, and given one when they are whole");
  } catch (error) {
    const code = codeOf(error);
    if (code === "EOPNOTSUPP" || code === "EISDIR" || code === "ENOTSUP") {
      const advice = "It works by temporary files (dsmr.t.*); see dsmr gc for those of the dead";
      return { name, status: "warn", found: `this file system has none (${code})`, advice };
    }
    const advice = code === "ENOSPC"
      ? "Remove files there (df -i), or name another directory with DSMR_DIR"
      : "Let this user write there, or name another directory with DSMR_DIR";
    return { name, status: "fail", found: code ?? String(error), advice };
  }
}

/** What RemoveIPC is set to by these files of systemd-logind, the later ones counting more. */
export function removeIpcIn(texts: readonly string[]): boolean | undefined {
  let value: boolean | undefined;
  for (const text of texts) {
    let part = "";
    for (const line of text.split("\n")) {
      part = /^\s*\[(.+)\]\s*$/.exec(line)?.[1] ?? part;
      const said = /^\s*RemoveIPC\s*=\s*(\w+)\s*$/i.exec(line)?.[1]?.toLowerCase();
      if (part === "Login" && said !== undefined) {
        value = ["yes", "true", "on", "1", "y", "t"].includes(said);
      }
    }
  }
  return value;
}

function readable(path: string): string[] {
  try {
    return [readFileSync(path, "utf8")];
  } catch (error) {
    if (["ENOENT", "EACCES", "ENOTDIR", "EISDIR"].includes(codeOf(error) ?? "")) return [];
    throw error;
  }
}

function isThere(path: string): boolean {
  try {
    statSync(path);
    return true;
  } catch (error) {
    if (["ENOENT", "EACCES", "ENOTDIR"].includes(codeOf(error) ?? "")) return false;
    throw error;
  }
}

/** In the order in which systemd reads them: the first main file there is, then the drop-ins. */
function loginSettings(): string[] {
  const roots = ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"];
  const main = roots.flatMap((root) => readable(join(root, "logind.conf"))).slice(0, 1);
  const dropIns = new Map<string, string>();
  for (const root of roots) {
    const folder = join(root, "logind.conf.d");
    if (!isThere(folder)) continue;
    // One of a name hides those of later places.
    for (const name of readdirSync(folder)) {
      if (name.endsWith(".conf") && !dropIns.has(name)) dropIns.set(name, join(folder, name));
    }
  }
  const inOrder = [...dropIns].sort(([a], [b]) => a < b ? -1 : 1).map(([, path]) => path);
  return [...main, ...inOrder.flatMap(readable)];
}

/** Users below this are the system's, whom systemd-logind leaves alone. */
const FIRST_USER = 1000;

/** Whether files vanish when the user logs out. */
export function checkRemoveIpc(dir: string, uid: number | undefined): Finding {
  const name = "RemoveIPC";
  if (!isThere("/run/systemd/system")) {
    return isWorking(name, "no systemd here: nobody removes files");
  }
  if (removeIpcIn(loginSettings()) === false) return isWorking(name, "no");
  if (!dir.startsWith("/dev/shm")) return isWorking(name, `yes, but it does not concern ${dir}`);
  if (uid === undefined || uid < FIRST_USER) {
    return isWorking(name, `yes, but not for users of the system, as uid ${uid} is`);
  }
  return {
    name,
    status: "warn",
    found: `yes: when uid ${uid} logs out for good, systemd removes its files from /dev/shm`,
    advice: "loginctl enable-linger, or RemoveIPC=no in /etc/systemd/logind.conf; or run as a " +
      "system user, or in another directory",
  };
}
