/**
 * A C program that does to a registry what no user of the library does.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { join } from "node:path";
import { type Scene, succeeded } from "./_scene.ts";
import { Child, root } from "./_spawn.ts";

/** A C program, which may touch what is the library's own. */
export class Intruder {
  readonly child: Child;

  private constructor(child: Child) {
    this.child = child;
  }

  static async start(scene: Scene): Promise<Intruder> {
    const child = scene.adopt(new Child([join(root, "zig-out", "bin", "interleave")]));
    assertEquals(await child.next(), { pid: child.pid });
    return new Intruder(child);
  }

  async ask(line: string): Promise<void> {
    this.child.sendLine(line);
    succeeded(await this.child.next());
  }

  /** One that has the lock of the table of words. */
  static async inWords(scene: Scene): Promise<Intruder> {
    const intruder = await Intruder.start(scene);
    await intruder.ask(`open ${scene.dir} test`);
    await intruder.ask("get \u0001parking 0 0");
    await intruder.ask("acquire exclusive");
    return intruder;
  }
}

/** What freezes and thaws the scene's registry. */
export async function freezer(
  scene: Scene,
): Promise<{ freeze(): Promise<void>; thaw(): Promise<void> }> {
  const intruder = await Intruder.start(scene);
  return {
    freeze: () => intruder.ask(`freeze ${scene.dir} test`),
    thaw: () => intruder.ask("thaw"),
  };
}
