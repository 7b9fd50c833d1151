import "../../../lib/mod.ts";
