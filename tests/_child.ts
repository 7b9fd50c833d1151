/**
 * The child process of the tests: commands as lines of JSON on stdin, reports on stdout.
 *
 * @module
 */

import process from "node:process";
import { Agent, type Command } from "./_agent.ts";
import { commands, readLine, report } from "./_line_protocol.ts";

const agent = new Agent({
  report,
  waitForGo(): void {
    if (readLine() === undefined) process.exit(1);
  },
});

for (const command of commands<Command>()) {
  report(agent.run(command));
}
