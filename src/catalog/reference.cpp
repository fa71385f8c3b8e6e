// The reference of all keys, as Markdown, made from the tables.
#include <fmt/format.h>

#include "catalog/catalog.h"
#include "catalog/previous.h"
#include "catalog/tables.h"
#include "catalog/yaml_tree.h"

namespace gpumod {

namespace {

std::string cell(std::string text) {
  for (std::size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2)
    text.insert(at, "\\");
  return text;
}

std::string table_of(const std::vector<Declaration>& declarations) {
  std::string text = "| key | value | default | meaning |\n|---|---|---|---|\n";
  for (const auto& each : declarations)
    text += fmt::format("| `{}` | {} | {} | {} |\n", each.key, cell(expected_of(each.shape)),
                        each.required ? "(required)" : cell(each.fallback), cell(each.help));
  return text + "\n";
}

constexpr std::string_view introduction = R"(# Configuration

<!-- Generated from the declarations in src/catalog/. Do not edit. -->

gpumod reads, below its configuration directory (`$GPUMOD_CONFIG_DIR`, or `$XDG_CONFIG_HOME/gpumod`):

- `gpumod.yaml`: settings;
- `services/*.yaml`: one service in each file, or several in a list under `services:`;
- `modes/*.yaml`: one mode in each file;
- `presets/**/*.yaml`: services in the words of gpumod 0.1.

Files end in `.yaml` or `.yml`; names that begin with a dot are left alone. gpumod never writes to a file of yours. Every
problem is reported with its place, and a file with an error takes nothing away from the others. When two files define one
id, the first stands: `services/` comes before `presets/`, and within a folder names are in alphabetical order.

## Rules for values

**Memory** is MiB when it is a whole number; with a unit it is `20 GiB`, `512MiB` or `1.5G` (1 G is 1024 MiB).
**Times** are seconds when they are numbers; with a unit `500ms`, `90s`, `2m` or `1h`.
**Paths** that are not absolute begin at the configuration directory; a leading `~/` is the home directory.

**Variables.** `$NAME` and `${NAME}` are filled in where paths, models, arguments, commands and environment values stand:
from the service's `env_file`, then from `variables:` in `gpumod.yaml`, then `HOME`, `USER` and `XDG_*`, then `PORT` and
`HOST` of the service. What was filled in is not looked at again. An undefined name is an error; `$$` is a plain dollar. In
`cmd` and `cmd_stop`, `${PORT}` and `${HOST}` are filled in when the service starts. A value from an `env_file` that ends up
among the arguments is warned of, because every user of the machine can read them there.

**Arguments** are a list, one argument each, or one text that is split so: blanks and line ends separate; between `'…'`
everything stands for itself; between `"…"` a backslash protects `"` and `\`; elsewhere a backslash protects the next
character, and joins lines at the end of one. There is no shell: no patterns, no commands, no comments. Variables are filled
in after splitting, so a value with blanks stays one argument.

**Environment files** hold `NAME=VALUE` lines, blank lines and lines that begin with `#`. `export ` may stand in front, and
quotes around the value: `'…'` as it stands, `"…"` with `\"`, `\\`, `\$` and `\n`. A `#` inside a value belongs to it. Give
them mode 0600.

**YAML**: UTF-8, one document, at most 1 MiB. Anchors, aliases and merge keys (`<<`) work. A key that stands twice is an
error, and so are tags other than YAML's own for text, numbers and truth values. A key without a value counts as absent.

)";

}  // namespace

std::string configuration_reference_markdown() {
  std::string text(introduction);
  text += "## Services\n\nFor every engine:\n\n" + table_of(declarations_of(common_service_table()));
  for (const auto kind : all_engines)
    text += fmt::format("### engine: {}\n\n", to_string(kind)) + table_of(declarations_of(engine_table(kind)));
  text += "### `model:` as a map\n\n" + table_of(declarations_of(model_table()));
  text += "### `probe:` as a map\n\n" + table_of(declarations_of(probe_table()));
  text += "## Modes\n\n" + table_of(declarations_of(mode_table()));
  text += "## Settings\n\n" + table_of(declarations_of(settings_table()));
  text += "### Each engine under `engines:`\n\n" + table_of(declarations_of(engine_settings_table()));
  text += "### Under `mcp:`\n\n" + table_of(declarations_of(mcp_table()));
  text +=
      "## Files of gpumod 0.1\n\nA file that says `driver:` is read in the old words. A key that is named neither here "
      "nor "
      "above is warned of and goes nowhere. `unit_template` is an error: write `unit:` to adopt a unit of your own, or "
      "leave "
      "it out. Containers come with `engine: command` and `container:`.\n\n| old key | engine | now |\n|---|---|---|\n";
  for (const auto& each : previous_renamings())
    text += fmt::format("| `{}` | {} | {} |\n", each.old_key, each.engine.empty() ? "any" : each.engine,
                        each.new_key.empty() ? "left aside" : fmt::format("`{}`", each.new_key));
  return text;
}

}  // namespace gpumod
