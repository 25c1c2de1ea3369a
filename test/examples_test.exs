# Folders of `examples/` whose Elixir half needs the package, or is typed into a shell: each shows what its README says. The others
# are run by native/tiebeam_node/tests/examples.rs.

defmodule ExamplesTest.Readme do
  @moduledoc false

  @doc "The READMEs of the folders that are run here."
  def all do
    for readme <- Path.wildcard("examples/*/README.md"),
        text = File.read!(readme),
        text =~ "mix run" or text =~ "```iex\n",
        do: {readme |> Path.dirname() |> Path.basename(), text}
  end

  @doc "What is to be typed into terminals, in order: words. The last one is what the promise is of."
  def commands(text) do
    for [command] <- Regex.scan(~r/^(?:[A-Z_]+=\S+ )*(?:cargo|elixir|iex) .*$/m, text),
        do: String.split(command)
  end

  @doc "Splits off the variables that a command begins with, as in a shell."
  def variables(words) do
    {variables, words} = Enum.split_while(words, &(&1 =~ ~r/^[A-Z_]+=/))

    {for(variable <- variables, into: %{}, do: variable |> String.split("=", parts: 2) |> List.to_tuple()),
     words}
  end

  @doc "What the block of this language says."
  def block(text, language) do
    with [_, block] <- Regex.run(~r/^```#{language}\n(.*?)^```$/ms, text), do: block
  end

  @doc "What is typed into a shell, and what it shows: `{expression, result}`."
  def transcript(block) do
    for part <- String.split(block, ~r/^iex> /m, trim: true) do
      [expression, result] = String.split(part, "\n", parts: 2)
      {expression, String.trim(result)}
    end
  end
end

for {name, text} <- ExamplesTest.Readme.all() do
  defmodule Module.concat(ExamplesTest, Macro.camelize(name)) do
    use ExUnit.Case, async: true

    alias ExamplesTest.Readme
    alias Support.{FailureLog, Multicast, Net, OsProcess}

    @text text
    @external_resource "examples/#{name}/README.md"
    # What it promises is what is written; how long that takes is the machine's.
    @deadline 120_000

    @tag skip: name == "gossip" and Multicast.skip()
    test "examples/#{name} prints what it promises", context do
      FailureLog.enter(context.module, context.test)
      # Its nodes have the names that the README says: another example has the same, under another epmd.
      port = free_port()
      start_supervised!({OsProcess, {"epmd", ["-port", "#{port}"], label: "epmd"}})
      Support.Eventually.eventually(fn -> match?({:ok, _}, Net.epmd_names(port)) end)

      env = %{"ERL_EPMD_PORT" => "#{port}", "LC_ALL" => "C.UTF-8", "MIX_ENV" => "test"}

      {halves, [last]} = @text |> Readme.commands() |> Enum.split(-1)

      for half <- halves do
        process = start(half, env)
        assert {:ok, _} = OsProcess.await_line(process, ~r/ is up; Ctrl-C ends it$/, @deadline)
      end

      case Readme.block(@text, "output") do
        nil ->
          transcript = @text |> Readme.block("iex") |> Readme.transcript()
          assert typed(last, transcript, env) == for({_expression, result} <- transcript, do: result)

        promised ->
          assert {0, ^promised} = last |> start(env) |> OsProcess.await_exit(@deadline)
      end
    end

    defp start(words, env) do
      {variables, words} = Readme.variables(words)
      start_command(words, Map.merge(env, variables))
    end

    defp start_command(["cargo", "run" | words], env) do
      [example | arguments] = words |> Enum.drop_while(&(&1 != "--example")) |> Enum.drop(1)
      start_program(program(example), arguments, env)
    end

    # As the README says, but for the package, which is compiled, and epmd, which runs.
    defp start_command(["elixir" | words], env) do
      {options, ["-S", "mix", "run" | arguments]} = Enum.split_while(words, &(&1 != "-S"))
      mix = ["-S", "mix", "run", "--no-compile", "--no-deps-check" | arguments]
      start_program("elixir", options ++ ["--erl", "-start_epmd false" | mix], env)
    end

    defp start_program(program, arguments, env) do
      label = Enum.join([Path.basename(program) | arguments], " ")
      start_supervised!({OsProcess, {program, arguments, label: label, env: env}})
    end

    # Below those that the system hands out by itself, as it does all the time in other tests.
    defp free_port do
      Enum.find(Enum.shuffle(10_000..29_999), fn port ->
        with {:ok, socket} <- :gen_tcp.listen(port, reuseaddr: true),
             do: :gen_tcp.close(socket) == :ok,
             else: (_ -> false)
      end)
    end

    defp program(example) do
      path = Path.expand("debug/examples/#{example}", System.get_env("CARGO_TARGET_DIR", "target"))

      unless File.exists?(path) do
        flunk("there is no #{path}; build it: cargo build --examples --workspace --all-features")
      end

      path
    end

    # A shell that reads from a pipe shows a prompt, and then the result.
    defp typed(["iex" | words], transcript, env) do
      expressions = Enum.map_join(transcript, &(elem(&1, 0) <> "\n"))
      shell = ~s(typed=$1; shift; printf '%s' "$typed" | iex "$@" --erl "-start_epmd false")
      iex = start_program("sh", ["-c", shell, "sh", expressions | words], env)
      assert {0, output} = OsProcess.await_exit(iex, @deadline)
      [_banner | results] = String.split(output, ~r/iex\(app@127\.0\.0\.1\)\d+> /)
      for result <- results, result = String.trim(result), result != "", do: result
    end
  end
end
