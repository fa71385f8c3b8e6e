// Links if fmt_archive.cpp gives what the code here needs of fmt.
#include <string>

#include <fmt/format.h>

int main(int argc, char** argv) {
  const std::string name = argv[0];
  const auto text = fmt::format("{} {:>8} {:02x} {:.1f} {} {:L} {} {}\n", name, argc, 255U, argc / 2.0, argc / 4.0F,
                                argc, 'x', argc == 1) +
                    fmt::format(fmt::runtime("{:?}{}"), name, static_cast<void*>(argv));
  fmt::print("{}", text);
  return text.empty() ? 1 : 0;
}
