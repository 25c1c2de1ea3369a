defmodule Support.Foreign do
  @moduledoc "Nodes that are neither BEAM nor Rust: what is installed of them."

  @doc "`erl_call` of erl_interface, or `nil`."
  def erl_call do
    paths = Path.wildcard(Path.join(:code.root_dir(), "lib/erl_interface-*/bin/erl_call"))
    System.find_executable("erl_call") || List.first(paths)
  end

  @doc "The library JInterface, or `nil` where it or a Java that runs source files is missing. `JINTERFACE_JAR` names another."
  def jinterface do
    paths =
      Path.wildcard(Path.join(:code.root_dir(), "lib/jinterface-*/priv/OtpErlang.jar")) ++
        ["/usr/share/java/OtpErlang.jar"]

    jar = System.get_env("JINTERFACE_JAR") || Enum.find(paths, &File.exists?/1)
    if System.find_executable("javac"), do: jar
  end

  @doc "Says once that the tests of a tool are skipped."
  def skip_reason(nil, tool, where) do
    reason = "#{tool} is not installed (#{where})"
    IO.puts("Skipped: the tests of #{tool}, which is not installed (#{where})")
    reason
  end

  def skip_reason(_path, _tool, _where), do: nil
end
