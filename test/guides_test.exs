# What the texts for users say is there: functions, options, files and tests.
defmodule GuidesTest do
  use ExUnit.Case, async: true

  @root Path.expand("..", __DIR__)
  @guides Path.wildcard(Path.join(@root, "native/tiebeam_node/src/guide/*.md"))
  @answers Path.join(@root, "native/rows.md")
  @texts [Path.join(@root, "README.md"), @answers | @guides]

  for path <- @texts do
    name = Path.relative_to(path, @root)

    test "#{name}: every block of Elixir is Elixir, and what it calls is there" do
      path = unquote(path)

      for block <- blocks(path, "elixir"), uses = uses(Code.string_to_quoted!(block, file: path)) do
        assert missing(uses) == [], "in\n#{block}"
      end
    end

    test "#{name}: what is named in the text is there" do
      for code <- spans(unquote(path)), code =~ ~r/^\{?Tiebeam\b/ do
        case Code.string_to_quoted(code) do
          {:ok, quoted} -> assert missing(uses(quoted)) == [], code
          {:error, why} -> flunk("#{code}: #{inspect(why)}")
        end
      end
    end

    test "#{name}: what it links to is there" do
      path = unquote(path)

      for link <- links(path), not String.contains?(link, "://") do
        assert path |> Path.dirname() |> Path.join(link) |> File.exists?(), link
      end
    end
  end

  test "the guides are pages of the Elixir documentation, and modules of the Rust one" do
    extras = Mix.Project.config()[:docs][:extras] |> Enum.map(&Path.expand(&1, @root))
    assert @guides != [] and @guides -- extras == []

    guide = File.read!(Path.join(@root, "native/tiebeam_node/src/guide.rs"))

    for path <- @guides,
        do: assert(guide =~ ~s|guide!(#{Path.basename(path, ".md")}, "guide/#{Path.basename(path)}")|)
  end

  test "the files and tests that the answers name are there" do
    text = File.read!(@answers)
    # `path` "what is in it", "and this"
    found = Regex.scan(~r/`((?:test|examples|native|lib|bin)\/[^` ]+)`((?:,? "[^"]+")*)/, text)
    assert length(found) > 50

    for [_, path | quoted] <- found do
      full = Path.join(@root, path)
      assert File.exists?(full), path

      for [_, words] <- Regex.scan(~r/"([^"]+)"/, Enum.join(quoted)) do
        assert String.contains?(File.read!(full), words), "#{path} has no #{words}"
      end
    end
  end

  # The code blocks of a language.
  defp blocks(path, language) do
    for [_, block] <- Regex.scan(~r/^```#{language}\n(.*?)^```/ms, File.read!(path)), do: block
  end

  # The pieces of code in the text, outside of blocks.
  defp spans(path) do
    text = path |> File.read!() |> String.replace(~r/^```.*?^```/ms, "")
    for [_, code] <- Regex.scan(~r/`([^`\n]+)`/, text), do: code
  end

  defp links(path) do
    text = path |> File.read!() |> String.replace(~r/^```.*?^```/ms, "")

    for pattern <- [~r/\]\(([^)#\s]+)[^)]*\)/, ~r/^\[\w+\]: (\S+)/m],
        [_, link] <- Regex.scan(pattern, text),
        do: link
  end

  # What a piece of code uses of the package: modules, functions with their arity, and options of a cluster.
  defp uses(quoted) do
    {_, uses} = Macro.prewalk(quoted, [], &collect/2)
    Enum.reverse(uses)
  end

  # value |> Tiebeam.Module.function(argument)
  defp collect(
         {:|>, _, [value, {{:., _, [{:__aliases__, _, [:Tiebeam | _]} = module, function]}, _, arguments}]},
         uses
       ) do
    {{:__block__, [], [value, arguments]}, [{module!(module), function, length(arguments) + 1} | uses]}
  end

  # Tiebeam.Module.function/2
  defp collect(
         {:/, _, [{{:., _, [{:__aliases__, _, [:Tiebeam | _]} = module, function]}, _, []}, arity]},
         uses
       )
       when is_integer(arity) do
    {nil, [{module!(module), function, arity} | uses]}
  end

  defp collect({{:., _, [{:__aliases__, _, [:Tiebeam | _]} = module, function]}, _, arguments}, uses) do
    {{:__block__, [], arguments}, [{module!(module), function, length(arguments)} | uses]}
  end

  # {Tiebeam, option: value}
  defp collect({{:__aliases__, _, [:Tiebeam]}, options} = pair, uses) when is_list(options) do
    {pair, for({key, _} <- options, do: {:option, key}) ++ uses}
  end

  defp collect({:__aliases__, _, [:Tiebeam | _]} = module, uses), do: {module, [module!(module) | uses]}
  defp collect(other, uses), do: {other, uses}

  defp module!({:__aliases__, _, names}), do: Module.concat(names)

  defp missing(uses), do: Enum.reject(uses, &there?/1)

  defp there?({:option, key}), do: Tiebeam.Options.docs() =~ "`:#{key}`"

  defp there?({module, function, arity}) do
    Code.ensure_loaded?(module) and
      (function_exported?(module, function, arity) or macro_exported?(module, function, arity))
  end

  defp there?(module), do: Code.ensure_loaded?(module)
end
