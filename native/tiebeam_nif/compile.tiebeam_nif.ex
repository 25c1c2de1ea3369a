defmodule Mix.Tasks.Compile.TiebeamNif do
  @moduledoc false
  # Builds the Rust library behind `Tiebeam.Native` with cargo and puts it into the application's `priv`.
  #
  # Cargo is asked every time: it alone knows whether a crate changed, and says so in a tenth of a second. The library
  # is always optimised, because it is what runs in production. Where there is no Rust, `TIEBEAM_NIF` names a library
  # that was built elsewhere: one library serves OTP 25 and later.

  use Mix.Task.Compiler

  @library "tiebeam_nif"

  @impl true
  def run(_args) do
    built = System.get_env("TIEBEAM_NIF") || build()
    target = target()

    if same?(built, target) do
      {:noop, []}
    else
      File.mkdir_p!(Path.dirname(target))
      # A new file, never new bytes in the old one: a running node has the old one mapped into its memory.
      File.rm(target)
      File.cp!(built, target)
      {:ok, []}
    end
  end

  @impl true
  def manifests, do: [target()]

  @impl true
  def clean do
    File.rm(target())
    :ok
  end

  defp build do
    cargo =
      System.find_executable("cargo") ||
        Mix.raise(
          "tiebeam needs Rust to build its native library, and there is no cargo in PATH. " <>
            "Install it from https://rustup.rs and compile again."
        )

    arguments = ~w(build --release --quiet --package tiebeam_nif --message-format json-render-diagnostics)

    case System.cmd(cargo, arguments, cd: Path.dirname(Mix.Project.project_file())) do
      {messages, 0} ->
        library_of(messages)

      {_messages, status} ->
        Mix.raise("cargo could not build #{@library} (status #{status}); it says why above")
    end
  end

  # Cargo names the files it made, one JSON object per line; the place depends on the user's cargo configuration.
  defp library_of(messages) do
    messages
    |> String.split("\n")
    |> Enum.find_value(fn line ->
      with true <- line =~ ~s("reason":"compiler-artifact"),
           true <- line =~ ~s("name":"#{@library}"),
           true <- line =~ ~s("crate_types":["cdylib"]),
           [_, file] <- Regex.run(~r/"filenames":\["([^"]+)"/, line) do
        String.replace(file, "\\\\", "\\")
      else
        _ -> nil
      end
    end) || Mix.raise("cargo built #{@library} but did not say where it is")
  end

  # The VM wants this suffix also where the system's own is another one (.dylib).
  defp target do
    suffix = if match?({:win32, _}, :os.type()), do: ".dll", else: ".so"
    Path.join([Mix.Project.app_path(), "priv", "native", @library <> suffix])
  end

  defp same?(built, target) do
    case File.read(target) do
      {:ok, bytes} -> bytes == File.read!(built)
      {:error, _} -> false
    end
  end
end
