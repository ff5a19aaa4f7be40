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
with zipfile.ZipFile("/libraries.zip", "w") as archive:
    for path in sorted(sources.rglob("*.py")):
        inside = path.relative_to(sources)
        py_compile.compile(
            path, path.with_suffix(".pyc"), str(inside), doraise=True, optimize=0,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        # Dated as the first day of zip files, so that each run packs the same bytes.
        entry = zipfile.ZipInfo(str(inside.with_suffix(".pyc")))
        compiled = path.with_suffix(".pyc").read_bytes()
        archive.writestr(entry, compiled, zipfile.ZIP_DEFLATED, 9)
`);
writeFileSync("libraries.zip", python.FS.readFile("/libraries.zip"));
