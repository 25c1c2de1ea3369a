# The table of checks in README.md, and the tests that have their numbers in their names.
defmodule Conformance.ChecksTest do
  use ExUnit.Case, async: true

  @directory "test/conformance"
  @last 77

  test "each check is a test, or the table says why not" do
    assert Enum.map(table(), &elem(&1, 0)) == Enum.to_list(1..@last)
    for {number, why} <- table(), files(why) == [], do: assert(String.length(why) > 20, "check #{number}")
  end

  test "the table names the files whose tests have the number" do
    for {number, told} <- table(), do: assert({number, files(told)} == {number, named(number)})
    assert Enum.all?(Map.keys(names()), &(&1 in 1..@last))
  end

  # Numbers, and what the last column says.
  defp table do
    for row <- Regex.scan(~r/^\| (\d+) \| [^|]+ \| ([^|]+) \|$/m, File.read!("#{@directory}/README.md")) do
      [_, number, told] = row
      {String.to_integer(number), told}
    end
  end

  defp files(told), do: ~r/`(\w+_test\.exs)`/ |> Regex.scan(told) |> Enum.map(&List.last/1)

  defp named(number), do: names() |> Map.get(number, []) |> Enum.uniq()

  # Numbers to the files of their tests.
  defp names do
    for path <- Enum.sort(Path.wildcard("#{@directory}/*_test.exs")),
        [_, number] <- Regex.scan(~r/^\s*test "check (\d+)\b/m, File.read!(path)),
        reduce: %{} do
      names ->
        Map.update(names, String.to_integer(number), [Path.basename(path)], &(&1 ++ [Path.basename(path)]))
    end
  end
end
