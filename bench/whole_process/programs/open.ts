import { Registry } from "../../../lib/mod.ts";

Registry.openSync("whole", { dir: "DIR" });
