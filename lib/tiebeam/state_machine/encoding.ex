defmodule Tiebeam.StateMachine.Encoding do
  @moduledoc false
  # A term in the external term format, written in one way alone: equal terms have equal bytes, whatever node, release or
  # language writes them. `term_to_binary/2` does not promise that between releases. The same is
  # `native/tiebeam_node/src/patterns/machine/encoding.rs`; `native/tiebeam_node/tests/vectors/states.txt` has what both write.
  #
  # The smallest tag that fits, as since OTP 26; atoms in UTF-8; a list is never a string; the pairs of a map are in the order of the
  # bytes of their keys. Functions and ports have no such form.

  @doc "The bytes of a term. Raises `ArgumentError` for what is no data."
  @spec encode(term) :: binary
  def encode(term), do: IO.iodata_to_binary([131 | write(term)])

  defp write(term) when is_integer(term) or is_float(term), do: plain(term)
  defp write(term) when is_atom(term), do: atom(term)
  defp write(term) when is_binary(term), do: [<<109, byte_size(term)::32>>, term]
  defp write(term) when is_bitstring(term), do: plain(term)

  defp write(term) when is_tuple(term) and tuple_size(term) < 256,
    do: [104, tuple_size(term) | term |> Tuple.to_list() |> Enum.map(&write/1)]

  defp write(term) when is_tuple(term),
    do: [<<105, tuple_size(term)::32>> | term |> Tuple.to_list() |> Enum.map(&write/1)]

  defp write([]), do: [106]

  defp write(term) when is_list(term) do
    {count, elements} = elements(term, 0, [])
    [<<108, count::32>> | elements]
  end

  defp write(term) when is_map(term) do
    pairs = for {key, value} <- Map.to_list(term), do: {IO.iodata_to_binary(write(key)), write(value)}
    pairs = pairs |> List.keysort(0) |> Enum.map(fn {key, value} -> [key, value] end)
    [<<116, map_size(term)::32>> | pairs]
  end

  # The node, and behind it what is always as long.
  defp write(term) when is_pid(term) do
    bytes = :erlang.term_to_binary(term, minor_version: 2)
    [88, atom(node(term)), binary_part(bytes, byte_size(bytes), -12)]
  end

  defp write(term) when is_reference(term) do
    <<131, 90, words::16, _::binary>> = bytes = :erlang.term_to_binary(term, minor_version: 2)
    [<<90, words::16>>, atom(node(term)), binary_part(bytes, byte_size(bytes), -4 - 4 * words)]
  end

  defp write(term) do
    raise ArgumentError,
          "the state of a machine is data, which all nodes can have; #{inspect(term)} is none: keep it elsewhere"
  end

  defp elements([first | rest], count, done), do: elements(rest, count + 1, [write(first) | done])
  defp elements(tail, count, done), do: {count, Enum.reverse(done, [write(tail)])}

  defp plain(term) do
    <<131, bytes::binary>> = :erlang.term_to_binary(term, minor_version: 2)
    bytes
  end

  defp atom(atom) do
    text = Atom.to_string(atom)
    bytes = byte_size(text)
    if bytes < 256, do: [<<119, bytes>>, text], else: [<<118, bytes::16>>, text]
  end
end
