#include "faces/cli/completion.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "faces/cli/cli.h"
#include "faces/cli/help.h"

namespace gpumod::cli {

namespace {

// Bash splits words at '=' and ':'; '=' comes back as a word of its own, which candidates_for understands.
constexpr std::string_view bash_script = R"(# gpumod completion for bash: source <(gpumod completion bash)
_gpumod() {
  local line
  COMPREPLY=()
  while IFS= read -r line; do
    case "$line" in
      :files) compopt -o default; return ;;
      :folders) compopt -o dirnames; return ;;
      *) COMPREPLY+=("${line%%$'\t'*}") ;;
    esac
  done < <(gpumod __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _gpumod gpumod
)";

constexpr std::string_view zsh_script = R"(#compdef gpumod
# gpumod completion for zsh: source <(gpumod completion zsh), or save it as _gpumod in a folder of $fpath
_gpumod() {
  local line
  local -a words_found
  while IFS= read -r line; do
    case "$line" in
      :files) _files; return ;;
      :folders) _files -/; return ;;
      *$'\t'*) words_found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
      *) words_found+=("${line//:/\\:}") ;;
    esac
  done < <(gpumod __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
  (( ${#words_found} )) && _describe gpumod words_found
}
if [[ "${funcstack[1]}" == "_gpumod" ]]; then
  _gpumod "$@"
else
  compdef _gpumod gpumod
fi
)";

constexpr std::string_view fish_script = R"(# gpumod completion for fish: gpumod completion fish | source
function __gpumod_complete
    set -l typed (commandline -opc) (commandline -ct)
    for line in (gpumod __complete $typed[2..-1] 2>/dev/null)
        switch $line
            case ':files'
                __fish_complete_path (commandline -ct)
            case ':folders'
                __fish_complete_directories (commandline -ct)
            case '*'
                echo $line
        end
    end
end
complete -c gpumod -f -a '(__gpumod_complete)'
)";

bool is_option(std::string_view word) {
  return word.size() > 1 && word.front() == '-';
}

const Parameter* option_named(const Verb& verb, std::string_view word) {
  for (const auto& parameter : verb.parameters) {
    if (parameter.positional || is_internal(parameter)) continue;
    if (word == "--" + parameter.name || (parameter.letter && word == std::string{'-', parameter.letter}))
      return &parameter;
  }
  return nullptr;
}

class Completer {
 public:
  Completer(const std::vector<Verb>& verbs, const NameLookup& names) : verbs_(verbs), names_(names) {}

  std::vector<Candidate> complete(std::vector<std::string> words) {
    if (words.empty()) words.emplace_back();
    typed_ = words.back();
    words.pop_back();
    join_at_equals(words);
    std::vector<std::string> plain;  // the words that are no options
    for (const auto& word : words)
      if (!is_option(word)) plain.push_back(word);
    if (plain.empty()) return first_words();
    if (plain[0] == "help") return verb_words({plain.begin() + 1, plain.end()});
    if (plain[0] == "completion") return plain.size() > 1 ? found_ : offer_all({"bash", "zsh", "fish"});
    const Verb* verb = verb_of(plain);
    if (!verb) return plain.size() == 1 ? verb_words(plain) : found_;
    return of_verb(*verb, words);
  }

 private:
  /// Bash's "--services" "=" "a,b", and everybody else's "--services=a,b": the value is being typed.
  void join_at_equals(std::vector<std::string>& words) {
    if (typed_ == "=" && !words.empty()) {
      pending_ = words.back();
      words.pop_back();
      typed_.clear();
    } else if (words.size() >= 2 && words.back() == "=") {
      pending_ = words[words.size() - 2];
      words.resize(words.size() - 2);
    } else if (const auto equals = typed_.find('='); typed_.starts_with("--") && equals != std::string::npos) {
      pending_ = typed_.substr(0, equals);
      prefix_ = typed_.substr(0, equals + 1);
      typed_.erase(0, equals + 1);
    }
  }

  const Verb* verb_of(const std::vector<std::string>& plain) const {
    const Verb* found = nullptr;
    for (const auto& verb : verbs_) {
      if (plain.size() > 1 && verb.name == plain[0] + " " + plain[1]) return &verb;
      if (verb.name == plain[0]) found = &verb;
    }
    return found;
  }

  void offer(std::string word, std::string_view help = {}) {
    if (word.starts_with(typed_)) found_.push_back({prefix_ + word, std::string(help)});
  }
  std::vector<Candidate> offer_all(std::initializer_list<std::string_view> all) {
    for (const auto word : all)
      offer(std::string(word));
    return found_;
  }

  std::vector<Candidate> first_words() {
    if (is_option(typed_) || typed_ == "-") return offer_all({"--help", "--version", "--json", "--no-color"});
    return verb_words({});
  }

  /// The words that can follow these on the way to a verb.
  std::vector<Candidate> verb_words(const std::vector<std::string>& before) {
    if (before.size() > 1) return found_;
    if (before.size() == 1) {
      for (const auto& verb : verbs_)
        if (group_of(verb) == before[0]) offer(verb.name.substr(before[0].size() + 1), verb.summary);
      return found_;
    }
    for (const auto& verb : verbs_)
      if (group_of(verb).empty()) offer(verb.name, verb.summary);
    const auto& own = own_commands();
    const auto stands_there = [&](const std::string& group) {
      const auto named = [&](const auto& one) { return one.name == group; };
      return std::any_of(verbs_.begin(), verbs_.end(), named) || std::any_of(own.begin(), own.end(), named);
    };
    for (const auto& group : groups(verbs_))
      if (!stands_there(group)) offer(group, "commands for " + group + "s");
    for (const auto& command : own)
      offer(std::string(command.name), command.summary);
    return found_;
  }

  std::vector<Candidate> of_verb(const Verb& verb, const std::vector<std::string>& words) {
    if (pending_.empty() && !words.empty()) {
      const auto* option = option_named(verb, words.back());
      if (option && option->kind != Parameter::Kind::flag) pending_ = words.back();
    }
    if (!pending_.empty()) {
      if (const auto* option = option_named(verb, pending_)) values_of(*option);
      return found_;
    }
    if (!typed_.empty() && typed_.front() == '-') {
      for (const auto& parameter : verb.parameters)
        if (!parameter.positional && !is_internal(parameter)) offer("--" + parameter.name, parameter.help);
      return offer_all({"--json", "--no-color", "--help"});
    }
    std::size_t given = 0;
    for (std::size_t i = 0; i < words.size(); ++i) {
      const auto* option = option_named(verb, words[i]);
      if (option && option->kind != Parameter::Kind::flag)
        ++i;
      else if (!is_option(words[i]))
        ++given;
    }
    given -= static_cast<std::size_t>(1 + std::count(verb.name.begin(), verb.name.end(), ' '));
    if (given == 0 && group_of(verb).empty()) verb_words({verb.name});
    for (const auto& parameter : verb.parameters)
      if (parameter.positional && given-- == 0) values_of(parameter);
    return found_;
  }

  void values_of(const Parameter& parameter) {
    if (parameter.names == Parameter::Names::none) {
      if (parameter.value_name == "DIR") found_.push_back({":folders", {}});
      if (parameter.value_name == "FILE") found_.push_back({":files", {}});
      return;
    }
    if (parameter.value_name.ends_with("|FILE")) found_.push_back({":files", {}});
    std::vector<std::string> before;  // a,b,<here>: what is listed already is not offered again
    if (const auto comma = typed_.rfind(','); parameter.kind == Parameter::Kind::list && comma != std::string::npos) {
      std::string_view listed = std::string_view(typed_).substr(0, comma);
      for (std::size_t end = 0; end != std::string_view::npos;
           listed.remove_prefix(end == std::string_view::npos ? 0 : end + 1)) {
        end = listed.find(',');
        before.emplace_back(listed.substr(0, end));
      }
      prefix_ += typed_.substr(0, comma + 1);
      typed_.erase(0, comma + 1);
    }
    for (const auto& known : names_(parameter.names))
      if (std::find(before.begin(), before.end(), known.id) == before.end())
        offer(known.id, known.name == known.id ? "" : known.name);
  }

  const std::vector<Verb>& verbs_;
  const NameLookup& names_;
  std::string typed_;
  std::string pending_;  ///< the option whose value is being typed
  std::string prefix_;   ///< belongs before each candidate
  std::vector<Candidate> found_;
};

}  // namespace

std::string_view completion_script(std::string_view shell) {
  return shell == "bash"   ? bash_script
         : shell == "zsh"  ? zsh_script
         : shell == "fish" ? fish_script
                           : std::string_view();
}

std::vector<Candidate> candidates_for(const std::vector<std::string>& words, const std::vector<Verb>& verbs,
                                      const NameLookup& names) {
  return Completer(verbs, names).complete(words);
}

std::string completions(const Paths& paths, const std::vector<std::string>& words, const std::vector<Verb>& verbs) {
  std::string out;
  for (const auto& candidate :
       candidates_for(words, verbs, [&](Parameter::Names which) { return known_names(paths, which); })) {
    out += printable(candidate.word);
    if (!candidate.help.empty()) out += "\t" + printable(candidate.help);
    out += "\n";
  }
  return out;
}

}  // namespace gpumod::cli
