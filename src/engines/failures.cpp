#include "engines/failures.h"

#include <algorithm>
#include <array>

#include "base/text.h"
#include "engines/reply.h"

namespace gpumod {

namespace {

using Class = FailureCause::Class;

constexpr FailureSignature vllm_signatures[] = {
    {"free memory on device*(<n>/<n> GiB) on startup is less than desired GPU memory utilization (<n>, <n> GiB)",
     Class::transient, "only {1} of {2} GiB were free at start, and gpu_memory_utilization {3} claims {4} GiB",
     "Free the GPU's memory first, or lower gpu_memory_utilization."},
    {"free memory on device*on startup is less than desired GPU memory utilization", Class::transient,
     "less memory was free at start than gpu_memory_utilization claims",
     "Free the GPU's memory first, or lower gpu_memory_utilization."},
    {"error in memory profiling. Initial free memory <n> GiB*current free memory <n> GiB", Class::transient,
     "another process freed memory while vLLM measured it (free before: {1} GiB, after: {2} GiB)",
     "Start it again while nothing else on this GPU starts or stops."},
    {"error in memory profiling", Class::transient, "another process changed the GPU's memory while vLLM measured it",
     "Start it again while nothing else on this GPU starts or stops."},
    {"max seq len (<n>)*(<n> GiB KV cache is needed*available KV cache memory (<n> GiB)*estimated maximum model length "
     "is "
     "<n>",
     Class::configuration, "max_model_len {1} needs {2} GiB of KV cache, and {3} GiB are left for it",
     "Lower max_model_len to {4}, or raise gpu_memory_utilization."},
    {"max seq len (<n>)*(<n> GiB KV cache is needed*available KV cache memory (<n> GiB)", Class::configuration,
     "max_model_len {1} needs {2} GiB of KV cache, and {3} GiB are left for it",
     "Lower max_model_len, or raise gpu_memory_utilization."},
    {"max seq len (<n>) is larger than the maximum number of tokens that can be stored in KV cache (<n>)",
     Class::configuration, "max_model_len {1} does not fit: the KV cache holds {2} tokens",
     "Lower max_model_len to {2}, or raise gpu_memory_utilization."},
    {"no available memory for the cache blocks", Class::configuration,
     "the weights leave no memory for the KV cache within gpu_memory_utilization",
     "Raise gpu_memory_utilization, or serve a smaller or quantized model."},
    {"user-specified max_model_len (<n>) is greater than the derived max_model_len (*=<n>", Class::configuration,
     "max_model_len {1} is more than the model was made for ({2})", "Lower max_model_len to {2}."},
    {"world size (<n>) is larger than the number of available GPUs (<n>)", Class::configuration,
     "tensor_parallel_size {1} asks for more GPUs than the {2} it may use",
     "Lower tensor_parallel_size to {2}, or let 'gpu:' name more devices."},
    {"bfloat16 is only supported on GPUs with compute capability of at least <n>", Class::configuration,
     "this GPU has no bfloat16 (it needs compute capability {1})", "Set dtype: half."},
    {"contains custom code which must be executed", Class::configuration, "the model brings code of its own",
     "If you trust it, set trust_remote_code: true."},
    {"failed to infer device type", Class::configuration, "vLLM sees no GPU",
     "Check the driver with nvidia-smi, and that this vLLM was built for CUDA."},
    {"unrecognized arguments: <t>", Class::configuration, "vLLM does not know these arguments: {1}",
     "Correct extra_args, or update vLLM."},
    {"object has no attribute 'all_special_ids'", Class::model,
     "the model's tokenizer does not fit the installed transformers",
     "Install the transformers version that the model's page names, or another tokenizer."},
    {"object has no attribute 'all_special_tokens_extended'", Class::model,
     "the model's tokenizer does not fit the installed transformers",
     "Install the transformers version that this vLLM was released with."},
    {"model architectures [<t>] are not supported", Class::model, "vLLM does not know the architecture {1}",
     "Update vLLM, or choose another model."},
    {"model architectures [<t>] failed to be inspected", Class::model, "vLLM could not load the architecture {1}",
     "Update vLLM, or choose another model."},
    {"has model type `<t>` but Transformers does not recognize this architecture", Class::model,
     "transformers does not know the model type {1}", "Update transformers and vLLM."},
    {"cannot access gated repo*huggingface.co/<t>/resolve/", Class::model, "the repository is gated: {1}",
     "Accept its licence on its page, put HF_TOKEN into env_file, and download it."},
    {"gated repo", Class::model, "the model's repository is gated",
     "Accept its licence on its page, put HF_TOKEN into env_file, and download it."},
    {"401 client error", Class::model, "the hub refused access to the model",
     "Check the model's id, and HF_TOKEN in env_file."},
    {"repository not found", Class::model, "the hub knows no such model", "Check the model's id."},
    {"<w> is not a local folder and is not a valid model identifier", Class::model, "there is no model {1}",
     "Check the model's id or path."},
    {"invalid repository ID or local directory specified: '<t>'", Class::model, "there is no usable model at {1}",
     "Check the model's id or path, and that it holds a config.json."},
    {"<w> does not appear to have a file named <w>", Class::model, "{1} lacks the file {2}",
     "Download the model again: hf download {1}"},
    {"cannot find any model weights with `<t>`", Class::model, "{1} holds no weights",
     "Download the model again: hf download {1}"},
    {"cannot find an appropriate cached snapshot folder", Class::model, "the model is not in the hub's cache",
     "Download it first: hf download MODEL"},
    {"localentrynotfounderror", Class::model,
     "a file of the model is not in the hub's cache, and the hub is off limits",
     "Download it first: hf download MODEL"},
    {"offlinemodeisenabled", Class::model, "a file of the model is not in the hub's cache, and the hub is off limits",
     "Download it first: hf download MODEL"},
    {"couldn't connect to 'https://huggingface.co' to load", Class::model,
     "a file of the model is not in the hub's cache, and the hub cannot be reached",
     "Download it first: hf download MODEL"},
    {"error while deserializing header", Class::model, "a safetensors file of the model is damaged",
     "Download the model again."},
};

constexpr FailureSignature llama_signatures[] = {
    {"couldn't bind HTTP server socket*port: <n>", Class::transient, "port {1} is already in use",
     "Stop what listens on port {1}, or give the service another port."},
    {"couldn't bind HTTP server socket", Class::transient, "the port is already in use",
     "Stop what listens there, or give the service another port."},
    {"allocating <n> MiB on device <n>: cudaMalloc failed: out of memory", Class::configuration,
     "GPU {2} had no room for {1} MiB", "Lower context_size or gpu_layers, or free the GPU first."},
    {"cudaMalloc failed: out of memory", Class::configuration, "the GPU's memory did not suffice",
     "Lower context_size or gpu_layers, or free the GPU first."},
    {"failed to allocate buffer for kv cache", Class::configuration, "the KV cache did not fit",
     "Lower context_size, or free the GPU first."},
    {"failed to allocate compute pp buffers", Class::configuration, "the compute buffers did not fit",
     "Lower context_size or the batch size (--ubatch-size), or free the GPU first."},
    {"failed to allocate compute buffers", Class::configuration, "the compute buffers did not fit",
     "Lower context_size or the batch size (--ubatch-size), or free the GPU first."},
    {"error: invalid argument: <t>", Class::configuration, "llama-server does not know the argument {1}",
     "Correct extra_args, or update llama.cpp."},
    {"error while handling argument \"<t>\": <t>", Class::configuration, "llama-server refuses the value of {1}: {2}",
     "Correct that value."},
    {"failed to initialize router models: <t>", Class::configuration, "the router refuses its models: {1}",
     "Correct models_preset or models_dir."},
    {"unknown model architecture: '<t>'", Class::model, "this llama.cpp does not know the architecture {1}",
     "Update llama.cpp, or choose another model."},
    {"failed to open GGUF file '<t>' (<t>)", Class::model, "the model file {1} cannot be opened: {2}",
     "Check model_path, and that the file is readable."},
    {"failed to open GGUF file <t>", Class::model, "the model file cannot be opened: {1}",
     "Check model_path, and that the file is readable."},
    {"tensor '<t>' not found", Class::model, "the model file is incomplete: it lacks the tensor {1}",
     "Download it again."},
    {"missing tensor '<t>'", Class::model, "the model file is incomplete: it lacks the tensor {1}",
     "Download it again."},
    {"data is not within the file bounds", Class::model, "the model file is cut short", "Download it again."},
    {"invalid magic", Class::model, "the model file is no GGUF file", "Check model_path."},
    {"error loading model: <t>", Class::model, "the model cannot be loaded: {1}",
     "Download it again, or update llama.cpp."},
    {"GGML_ASSERT(<t>) failed", Class::model, "llama.cpp gave up on an assertion: {1}",
     "Update llama.cpp, or choose another file of this model."},
};

constexpr FailureSignature python_signatures[] = {
    {"error while attempting to bind on address ('<t>', <n>*: address already in use", Class::transient,
     "port {2} is already in use", "Stop what listens on port {2}, or give the service another port."},
    {"address already in use*port <n>", Class::transient, "port {1} is already in use",
     "Stop what listens on port {1}, or give the service another port."},
    {"address already in use", Class::transient, "the port is already in use",
     "Stop what listens there, or give the service another port."},
    {"CUDA out of memory. Tried to allocate <n> <w>", Class::configuration, "the GPU had no room for {1} {2} more",
     "Lower the context or the batch, or free the GPU first."},
    {"CUDA out of memory", Class::configuration, "the GPU's memory did not suffice",
     "Lower the context or the batch, or free the GPU first."},
    {"no CUDA GPUs are available", Class::configuration, "the process sees no GPU",
     "Check the driver with nvidia-smi, and CUDA_VISIBLE_DEVICES."},
    {"CUDA driver version is insufficient", Class::configuration, "the GPU's driver is too old for this program",
     "Update the NVIDIA driver."},
    {"Error loading ASGI app. Could not import module \"<t>\"", Class::configuration,
     "there is no Python module {1} where the service runs", "Check app and working_dir."},
    {"Error loading ASGI app. Attribute \"<t>\" not found in module \"<t>\"", Class::configuration,
     "the module {2} has no {1}", "Check app: it reads module:attribute."},
    {"ModuleNotFoundError: No module named '<t>'", Class::configuration, "the Python package {1} is not installed",
     "Install it in the environment that the service's binary belongs to."},
    {"no such option: <w>", Class::configuration, "the program does not know the option {1}", "Correct extra_args."},
};

constexpr FailureSignature machine_signatures[] = {
    {"error while loading shared libraries: <t>:", Class::configuration, "the shared library {1} is missing",
     "Install it, or set LD_LIBRARY_PATH in env."},
    {"failed to locate executable <t>:", Class::configuration, "there is no program {1}", "Check binary or cmd."},
    {"failed at step CHDIR", Class::configuration, "the working directory does not exist", "Check working_dir."},
    {"failed at step EXEC", Class::configuration, "the program could not be started", "Check binary or cmd."},
    {"no space left on device", Class::configuration, "the disk is full", "Free some space."},
    {"killed by the OOM killer", Class::configuration, "the machine's memory ran out, and the kernel ended the service",
     "Run fewer services at once, or lower what this one keeps in host memory."},
};

/// vLLM's last and least informative line: it only points back.
constexpr std::string_view pointing_back = "See root cause above";

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_name(char c) {
  return is_digit(c) || (lower(c) >= 'a' && lower(c) <= 'z') || c == '_' || c == '.';
}

bool starts_with(std::string_view text, std::string_view prefix) {
  return text.size() >= prefix.size() &&
         std::equal(prefix.begin(), prefix.end(), text.begin(), [](char a, char b) { return lower(a) == lower(b); });
}

/// Length of the number at the start: a separator belongs to it only between digits, so a full stop does not.
std::size_t number_length(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size() &&
         (is_digit(text[i]) || (i > 0 && (text[i] == '.' || text[i] == ',') && is_digit(text[i - 1]) &&
                                i + 1 < text.size() && is_digit(text[i + 1]))))
    ++i;
  return i;
}

std::size_t word_length(std::string_view text) {
  std::size_t i = text.find_first_of(" \t'\"`()[]{}<>,;");
  if (i == std::string_view::npos) i = text.size();
  while (i > 0 && (text[i - 1] == '.' || text[i - 1] == ':'))
    --i;
  return i;
}

/// One attempt at one line. `budget` bounds the backtracking, so that no line can keep us.
struct Matcher {
  std::vector<std::string> captured;
  int budget = 100'000;

  bool match(std::string_view pattern, std::string_view text) {
    if (--budget < 0) return false;
    if (pattern.empty()) return true;
    if (pattern.front() == '*') return skip(pattern.substr(1), text);
    if (pattern.starts_with("<n>")) return take(pattern.substr(3), text, number_length(text));
    if (pattern.starts_with("<w>")) return take(pattern.substr(3), text, word_length(text));
    if (pattern.starts_with("<t>")) return take_until(pattern.substr(3), text);
    const auto literal = pattern.substr(0, std::min(pattern.find('*'), pattern.find('<')));
    return starts_with(text, literal) && match(pattern.substr(literal.size()), text.substr(literal.size()));
  }

  /// The next place where `pattern` matches; keeps what an attempt that failed had captured out.
  bool skip(std::string_view pattern, std::string_view text) {
    const auto before = captured.size();
    for (std::size_t i = 0; i <= text.size(); ++i) {
      if (may_start(pattern, text.substr(i)) && match(pattern, text.substr(i))) return true;
      captured.resize(before);
      if (--budget < 0) return false;
    }
    return false;
  }

  bool take(std::string_view pattern, std::string_view text, std::size_t length) {
    if (length == 0) return false;
    captured.emplace_back(text.substr(0, length));
    return match(pattern, text.substr(length));
  }

  bool take_until(std::string_view pattern, std::string_view text) {
    if (pattern.empty()) return take(pattern, text, text.size());
    const auto place = captured.size();
    for (std::size_t i = 1; i <= text.size(); ++i) {
      if (--budget < 0) return false;
      if (!may_start(pattern, text.substr(i))) continue;
      captured.emplace_back(text.substr(0, i));
      if (match(pattern, text.substr(i))) return true;
      captured.resize(place);
    }
    return false;
  }

  /// Cheap look ahead: a literal must begin here.
  static bool may_start(std::string_view pattern, std::string_view text) {
    if (pattern.empty() || pattern.front() == '*' || pattern.front() == '<') return true;
    return !text.empty() && lower(pattern.front()) == lower(text.front());
  }
};

std::string filled_in(std::string_view text, const std::vector<std::string>& captured) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool hole = text[i] == '{' && i + 2 < text.size() && is_digit(text[i + 1]) && text[i + 2] == '}';
    if (!hole) {
      result += text[i];
      continue;
    }
    const auto place = static_cast<std::size_t>(text[i + 1] - '1');
    result += place < captured.size() ? shorten(captured[place], 120) : "?";
    i += 2;
  }
  return result;
}

/// What a line says without the decoration of loggers: "(EngineCore_0 pid=7) ERROR 11-22 21:03:11 [core.py:8] x" → "x".
struct Statement {
  std::string_view text;
  bool warning = false;  ///< or less: information, debugging
  bool error = false;
};

std::string_view without_parenthesised_prefix(std::string_view text) {
  text = trim(text);
  while (text.starts_with("(")) {
    const auto end = text.find(')');
    if (end == std::string_view::npos) break;
    text = trim(text.substr(end + 1));
  }
  return text;
}

Statement python_statement(std::string_view line) {
  Statement statement{without_parenthesised_prefix(line)};
  for (const std::string_view level : {"WARNING", "INFO", "DEBUG", "ERROR", "CRITICAL"}) {
    if (!statement.text.starts_with(level)) continue;
    const auto rest = statement.text.substr(level.size());
    if (rest.empty() || (rest[0] != ' ' && rest[0] != ':')) break;
    statement.error = level == "ERROR" || level == "CRITICAL";
    statement.warning = !statement.error;
    const auto bracket = rest.find("] ");
    statement.text = trim(bracket == std::string_view::npos ? rest.substr(1) : rest.substr(bracket + 1));
    break;
  }
  return statement;
}

/// llama.cpp: "[55433] 0.00.023.659 E tag: text" (a router puts the child's port first), older builds only "text".
Statement llama_statement(std::string_view line) {
  Statement statement{trim(line)};
  if (statement.text.starts_with("[")) {
    const auto end = statement.text.find("] ");
    if (end != std::string_view::npos) statement.text = trim(statement.text.substr(end + 1));
  }
  const auto stamp = statement.text.find(' ');
  const bool has_level = stamp != std::string_view::npos && stamp + 2 < statement.text.size() &&
                         statement.text[stamp + 2] == ' ' && is_digit(statement.text[0]);
  if (has_level) {
    const char level = statement.text[stamp + 1];
    statement.error = level == 'E';
    statement.warning = level == 'W' || level == 'I' || level == 'D';
    statement.text = trim(statement.text.substr(stamp + 2));
  } else {
    statement.error = starts_with(statement.text, "error:");
  }
  return statement;
}

/// "ValueError: …", "torch.cuda.OutOfMemoryError: …"
bool is_exception(std::string_view text) {
  std::size_t end = 0;
  while (end < text.size() && is_name(text[end]))
    ++end;
  const auto name = text.substr(0, end);
  return (name.ends_with("Error") || name.ends_with("Exception")) && text.substr(end).starts_with(": ");
}

bool says_error(std::string_view text) {
  return starts_with(text, "error:") || starts_with(text, "fatal:") || starts_with(text, "panic:") ||
         starts_with(text, "fatal error:");
}

}  // namespace

std::vector<const FailureSignature*> signatures_of(EngineKind engine) {
  std::vector<const FailureSignature*> all;
  const auto add = [&](const auto& table) {
    for (const auto& signature : table)
      all.push_back(&signature);
  };
  if (engine == EngineKind::vllm) add(vllm_signatures);
  // A command may be any of them.
  if (engine == EngineKind::llamacpp || engine == EngineKind::command) add(llama_signatures);
  if (engine != EngineKind::llamacpp) add(python_signatures);
  add(machine_signatures);
  return all;
}

std::optional<std::vector<std::string>> match_pattern(std::string_view pattern, std::string_view line) {
  Matcher matcher;
  if (!matcher.skip(pattern, line)) return std::nullopt;
  return std::move(matcher.captured);
}

FailureCause first_cause(EngineKind engine, const std::vector<LogLine>& log) {
  constexpr std::size_t longest_line = 4096;
  const auto signatures = signatures_of(engine);
  std::optional<FailureCause> exception;
  std::optional<FailureCause> last_resort;

  for (const auto& entry : log) {
    const auto line = std::string_view(entry.text).substr(0, longest_line);
    const auto statement = engine == EngineKind::llamacpp ? llama_statement(line) : python_statement(line);
    if (statement.warning || statement.text.empty()) continue;
    for (const auto* signature : signatures) {
      const auto captured = match_pattern(signature->pattern, statement.text);
      if (!captured) continue;
      return {signature->kind, filled_in(signature->cause, *captured), filled_in(signature->remedy, *captured),
              shorten(line, 500)};
    }
    const bool tells = is_exception(statement.text) || says_error(statement.text) ||
                       (engine == EngineKind::llamacpp && statement.error);
    if (!tells) continue;
    auto& place = statement.text.find(pointing_back) == std::string_view::npos ? exception : last_resort;
    if (!place) place = FailureCause{Class::unknown, shorten(statement.text, 300), {}, shorten(line, 500)};
  }
  if (exception) return *exception;
  return last_resort.value_or(FailureCause{});
}

std::string_view to_string(FailureCause::Class kind) {
  switch (kind) {
    case Class::transient: return "transient";
    case Class::configuration: return "configuration";
    case Class::model: return "model";
    case Class::unknown: break;
  }
  return "unknown";
}

}  // namespace gpumod
