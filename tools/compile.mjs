// Compile sources.zip into libraries.zip with the very Python that will run in the page.
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const { loadPyodide } = await import(pathToFileURL("pyodide.mjs"));
const python = await loadPyodide();
python.unpackArchive(new Uint8Array(readFileSync("sources.zip")), "zip", { extractDir: "/sources" });
// Assertions stay: SymPy catches some of its own.
python.runPython(`
import pathlib, py_compile, warnings, zipfile

warnings.simplefilter("ignore")
sources = pathlib.Path("/sources")
with zipfile.ZipFile("/libraries.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
    for path in sorted(sources.rglob("*.py")):
        inside = path.relative_to(sources)
        py_compile.compile(
            path, path.with_suffix(".pyc"), str(inside), doraise=True, optimize=0,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        archive.write(path.with_suffix(".pyc"), str(inside.with_suffix(".pyc")))
`);
writeFileSync("libraries.zip", python.FS.readFile("/libraries.zip"));
