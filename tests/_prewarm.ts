/**
 * What the tests of prewarm stand in: a scene with a folder for files and the list.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import type { BlockCache, CachedFile } from "../examples/prewarm/block_cache.ts";
import { type Prewarm, prewarm, type PrewarmOptions } from "../examples/prewarm/prewarm.ts";
import { type BackgroundWorker, DsmrError, Registry } from "../lib/mod.ts";
import { isRunning } from "./_background.ts";
import { checkContent } from "./_prewarm_data.ts";
import type { PrewarmCommand, PrewarmReport } from "./_prewarm_member.ts";
import { inScene, type Scene, until } from "./_scene.ts";
import { Child, commandLine, type RuntimeName } from "./_spawn.ts";

/** A process that reads, or saves. */
export class Member {
  readonly #child: Child;

  private constructor(child: Child) {
    this.#child = child;
  }

  static async start(
    stage: Stage,
    runtime: RuntimeName,
    options?: Partial<PrewarmOptions>,
  ): Promise<Member> {
    const command = commandLine(runtime, "_prewarm_member.ts");
    const member = new Member(stage.scene.adopt(new Child(command)));
    assertEquals(await member.#child.next() as unknown, { pid: member.#child.pid });
    if (options !== undefined) {
      await member.ask({ do: "open", dir: stage.scene.dir, options: stage.options(options) });
    }
    return member;
  }

  send(command: PrewarmCommand): void {
    this.#child.sendLine(JSON.stringify(command));
  }

  /** The next report, which must not be one of a failure. */
  async well(): Promise<PrewarmReport> {
    const report = await this.#child.next() as unknown as PrewarmReport;
    assert(report.ok === true, JSON.stringify(report));
    return report;
  }

  async ask(command: PrewarmCommand): Promise<PrewarmReport> {
    this.send(command);
    return await this.well();
  }

  /** What it reports, or how it has ended instead. */
  async wellOrDead(): Promise<PrewarmReport | string> {
    try {
      return await this.well();
    } catch (error) {
      // Both are told of its death; a report of a failure, or none, is no death.
      if (!this.#child.hasEnded) throw error;
      return await this.#child.ended;
    }
  }

  get ended(): Promise<string> {
    return this.#child.ended;
  }
}

/** A registry with the add-in, in this process. */
export interface Started {
  registry: Registry;
  mine: Prewarm;
  cache: BlockCache;
  saver: BackgroundWorker;
  /** Ends the saver, and destroys the registry. */
  stop(): Promise<void>;
}

export class Stage {
  readonly scene: Scene;
  /** For files, and the list. */
  readonly folder: string = mkdtempSync(join(tmpdir(), "dsmr.test."));
  readonly listFile: string = join(this.folder, "hot_blocks");

  readonly #started = new Set<Started>();

  constructor(scene: Scene) {
    this.scene = scene;
    scene.atEnd(() => rmSync(this.folder, { recursive: true, force: true }));
  }

  options(options: Partial<PrewarmOptions> = {}): PrewarmOptions {
    return { listFile: this.listFile, frames: 64, saveEvery: 0, ...options };
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** Opens the registry, and supervises. Waits for nothing. */
  open(options: Partial<PrewarmOptions> = {}): Started {
    const warm = prewarm(this.options(options));
    const registry = this.scene.open({ addins: [warm], supervise: true });
    const mine = registry.addin(warm);
    const { saver, cache } = mine;
    assert(saver !== undefined, "the saver was not registered");
    const stop = async (): Promise<void> => {
      this.#started.delete(started);
      saver.terminate();
      assertEquals(await saver.waitForShutdown(), { exitCode: 0, reason: "terminated" });
      registry.close();
      Registry.destroy("test", { dir: this.scene.dir });
    };
    const started = { registry, mine, cache, saver, stop };
    this.#started.add(started);
    return started;
  }

  /** Kills the savers that a test which has failed did not stop, or they would save once more. */
  async end(): Promise<void> {
    for (const { saver } of this.#started) {
      const pid = pidOf(saver);
      if (pid !== null && isRunning(pid)) await killed(pid);
    }
  }

  /** The same; the saver has loaded the list. */
  async start(options: Partial<PrewarmOptions> = {}): Promise<Started> {
    const started = this.open(options);
    await started.saver.waitForReady();
    return started;
  }
}

/** The worker's process; null also where its registry was closed or destroyed. */
function pidOf(worker: BackgroundWorker): number | null {
  try {
    return worker.pid;
  } catch (error) {
    if (error instanceof DsmrError && ["CLOSED", "DETACHED"].includes(error.code)) return null;
    throw error;
  }
}

/** Runs a test's body on a stage. */
export function onStage(body: (stage: Stage) => void | Promise<void>): Promise<void> {
  return inScene(async (scene) => {
    const stage = new Stage(scene);
    try {
      await body(stage);
    } finally {
      await stage.end();
    }
  });
}

/** How many blocks there are; none may be there twice. */
export function countBlocks(list: CachedFile[]): number {
  const all = list.flatMap(({ path, blocks }) => blocks.map((block) => `${block} of ${path}`));
  assertEquals(new Set(all).size, all.length, "a block is there twice");
  return all.length;
}

/** From 0 on, without the end. */
export const range = (end: number): number[] => Array.from({ length: end }, (_, i) => i);

/** The temporary files of lists. */
export const temporaries = ({ folder }: Stage): string[] =>
  readdirSync(folder).filter((name) => name.endsWith(".tmp"));

/** Reads these blocks, and checks them. */
export function readAll({ cache }: Started, path: string, blocks: readonly number[]): void {
  for (const block of blocks) checkContent(cache.read(path, block), path, block);
}

/**
 * Asserts that what is listed, is right. What somebody has left half-done may be missed once, which
 * has it mended; but then it is found.
 */
export function assertListed(started: Started): void {
  const list = started.cache.list();
  countBlocks(list);
  for (const { path, blocks } of list) readAll(started, path, [...blocks, ...blocks]);
}

/** Asserts that every block of the cache is found when it is asked for. */
export function assertAllFound(started: Started, when: string): void {
  const { cache } = started;
  const list = cache.list();
  assertEquals(countBlocks(list), 64, when);
  const { misses } = cache;
  for (const { path, blocks } of list) readAll(started, path, blocks);
  assertEquals(cache.misses - misses, 0, when);
}

export async function killed(pid: number | null): Promise<void> {
  assert(pid !== null && pid !== process.pid);
  process.kill(pid, "SIGKILL");
  await until(() => !isRunning(pid));
}
