// A model: what its file says, and what it takes.

#include <fmt/format.h>

#include "base/text.h"
#include "faces/cli/fields.h"
#include "faces/cli/render.h"
#include "faces/cli/table.h"

namespace gpumod::cli {

namespace json = boost::json;

std::string round_count(const json::value& amount) {
  const auto count = number(amount).value_or(0);
  if (count >= 1e12) return fmt::format("{:.2f} T", count / 1e12);
  if (count >= 1e9) return fmt::format("{:.1f} B", count / 1e9);
  if (count >= 1e6) return fmt::format("{:.1f} M", count / 1e6);
  if (count >= 1e3) return fmt::format("{:.1f} K", count / 1e3);
  return fmt::format("{:.0f}", count);
}

namespace {

/// A number, or the range of those of the layers.
std::string number_or_range(const json::value& value) {
  if (!value.is_array()) return plain(value);
  double least = 0, most = 0;
  for (const auto& each : elements(value)) {
    const auto amount = number(each).value_or(0);
    if (amount <= 0) continue;
    least = least == 0 ? amount : std::min(least, amount);
    most = std::max(most, amount);
  }
  return least == most ? fmt::format("{:.0f}", most) : fmt::format("{:.0f} to {:.0f}", least, most);
}

std::string attention_words(const json::value& attention) {
  if (attention.is_null()) return {};
  std::vector<std::string> parts;
  parts.push_back(fmt::format("{} heads, {} for keys", number_or_range(member(attention, "heads")),
                              number_or_range(member(attention, "kv_heads"))));
  const auto& latent = member(attention, "latent");
  if (!latent.is_null()) parts.push_back(fmt::format("latent, rank {}", plain(member(latent, "kv_rank"))));
  if (number(member(attention, "sliding_layers")).value_or(0) > 0)
    parts.push_back(fmt::format("{} layers see {} tokens", plain(member(attention, "sliding_layers")),
                                plain(member(attention, "sliding_window"))));
  if (number(member(attention, "shared_layers")).value_or(0) > 0)
    parts.push_back(fmt::format("{} layers share keys and values", plain(member(attention, "shared_layers"))));
  return join(parts, "; ");
}

std::string facts_table(const json::value& answer, const Screen& screen) {
  Table table({{""}, {"", false, true}});
  const auto row = [&](std::string_view title, const std::string& words) {
    if (!words.empty()) table.add({{std::string(title), Ink::dim}, {words}});
  };
  const auto& model = member(answer, "model");
  const auto files = texts(member(model, "files"));
  row("file", files.empty()       ? ""
              : files.size() == 1 ? files.front()
                                  : fmt::format("{} and {} more", files.front(), files.size() - 1));
  row("size", mebibytes(member(model, "bytes")));
  // A file without weights would show zeros that say nothing.
  const auto unless_none = [](const json::value& amount, std::string words) {
    return number(amount).value_or(0) > 0 ? words : std::string();
  };
  row("parameters", unless_none(member(answer, "parameters"), round_count(member(answer, "parameters"))));
  auto layers = unless_none(member(answer, "layers"), plain(member(answer, "layers")));
  if (const auto more = number(member(answer, "prediction_layers")).value_or(0); more > 0)
    layers += fmt::format(", {:.0f} of them for predicting further tokens", more);
  row("layers", layers);
  row("context", plain(member(answer, "context_length")));
  row("attention", attention_words(member(answer, "attention")));
  if (const auto& state = member(answer, "state"); !state.is_null())
    row("state", fmt::format("{} recurrent layers", plain(member(state, "layers"))));
  if (const auto& experts = member(answer, "experts"); !experts.is_null())
    row("experts", fmt::format("{} of {}", plain(member(experts, "used")), plain(member(experts, "count"))));
  const auto& tokenizer = member(answer, "tokenizer");
  std::vector<std::string> tokens{plain(member(tokenizer, "model")), plain(member(tokenizer, "pre"))};
  if (const auto words = plain(member(tokenizer, "vocabulary")); !words.empty()) tokens.push_back(words + " tokens");
  std::erase(tokens, "");
  row("tokenizer", join(tokens, ", "));
  return table.render(screen, 0, false);
}

std::string types_table(const json::value& answer, const Screen& screen) {
  Table table({{"TYPE"}, {"TENSORS", true}, {"PARAMETERS", true}, {"SIZE", true}});
  for (const auto& type : elements(member(member(answer, "quantization"), "types")))
    table.add({{text(member(type, "type"))},
               {plain(member(type, "tensors"))},
               {round_count(member(type, "parameters"))},
               {mebibytes(member(type, "bytes"))}});
  return table.empty() ? "" : "\n" + table.render(screen);
}

std::string tensors_table(const json::value& answer, const Screen& screen) {
  Table table({{"TENSOR"}, {"TYPE"}, {"SHAPE"}, {"BYTES", true}});
  for (const auto& tensor : elements(member(answer, "tensors")))
    table.add({{text(member(tensor, "name"))},
               {text(member(tensor, "type"))},
               {join(texts(member(tensor, "shape")), " x ")},
               {plain(member(tensor, "bytes"))}});
  return table.empty() ? "" : "\n" + table.render(screen);
}

std::string vram_table(const json::value& vram, const Screen& screen) {
  const auto& gpus = elements(member(vram, "gpus"));
  std::vector<Column> columns{{"VRAM"}};
  for (std::size_t i = 0; i < gpus.size(); ++i)
    columns.push_back({gpus.size() == 1 ? "" : fmt::format("GPU {}", i), true});
  Table table(std::move(columns));
  const auto row = [&](std::string_view title, const char* key, Ink ink) {
    std::vector<Cell> cells{{std::string(title), ink == Ink::plain ? Ink::dim : ink}};
    for (const auto& gpu : gpus)
      cells.push_back({mebibytes(member(gpu, key)), ink});
    table.add(std::move(cells));
  };
  row("weights", "weights", Ink::plain);
  row("keys, values, states", "kv", Ink::plain);
  row("computation (about)", "compute", Ink::plain);
  row("CUDA (about)", "context", Ink::plain);
  row("together", "total", Ink::bold);
  auto out = "\n" + table.render(screen);
  if (number(member(member(vram, "host"), "weights")).value_or(0) > 0)
    out += fmt::format("and in host memory: {} of weights\n", mebibytes(member(member(vram, "host"), "weights")));
  if (const auto& claim = member(vram, "claim"); !claim.is_null()) {
    const auto& fits = member(vram, "fits");
    out += fmt::format("vLLM claims {}: {}\n", mebibytes(claim),
                       truth(fits) ? paint(screen, Ink::green, "it fits in there")
                                   : paint(screen, Ink::red, "it does not fit in there"));
  }
  const auto source = text(member(vram, "source"));
  out += fmt::format("\nBy {}:\n", source.empty() ? "arithmetic" : source);
  for (const auto& words : elements(member(vram, "assumptions")))
    out += paragraph(text(words), screen, 2, "- ");
  return out;
}

}  // namespace

std::string render_model(const json::value& answer, const Screen& screen) {
  const auto& model = member(answer, "model");
  std::vector<std::string> title{plain(member(model, "name")), plain(member(answer, "architecture")),
                                 plain(member(member(answer, "quantization"), "name"))};
  std::erase(title, "");
  auto out = title.empty() ? std::string() : paint(screen, Ink::bold, join(title, ", ")) + "\n";
  out += facts_table(answer, screen) + types_table(answer, screen) + tensors_table(answer, screen);
  for (const auto& note : texts(member(answer, "notes")))
    out += "\n" + paragraph(note, screen, 2, "!", Ink::yellow);
  const auto& vram = member(answer, "vram");
  return vram.is_null() ? out : out + vram_table(vram, screen);
}

}  // namespace gpumod::cli
