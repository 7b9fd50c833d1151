import "../../lib/mod.ts";
